"""From which code and packages a result comes: versions, and the git commit."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path

from segdist import __version__

PACKAGES = {
    "torch": "torch",
    "ipex": "intel-extension-for-pytorch",
    "neural_compressor": "neural-compressor",
    "oneccl": "oneccl-bind-pt",
    "numpy": "numpy",
}
"""Name in a result → name of the distribution."""


def versions() -> dict[str, str]:
    """Versions of Python, this suite (with its commit, where it runs from a checkout) and of what it stands on.

    Nothing is imported for it; a package that is not installed is left out.
    """
    found = {"python": platform.python_version(), "segdist": __version__}
    for name, distribution in PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = checkout_commit()
    if commit:
        found["commit"] = commit
    return found


def checkout_commit() -> str | None:
    """The git commit of the checkout this package runs from, with ``+`` where files were changed; else None."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return described.stdout.strip() or None
