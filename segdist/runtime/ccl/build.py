"""Build the shim (oneccl.cpp) against the oneCCL of PyPI's packages: ``python -m segdist.runtime.ccl.build``.

The file's name holds a digest of source and version, so that it is built again only where one of them has changed. It
lies beside the source, or in the user's cache where that folder is read-only. It appears by a rename: ranks that build
at the same time do not disturb each other.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "2021.15.2"
SOURCE = Path(__file__).with_name("oneccl.cpp")


class BuildError(RuntimeError):
    """The shim cannot be built; the message says what to install."""


def built_name(prefix: Path = Path(sys.prefix)) -> str:
    """Name of the shim for this source, version and installation."""
    digest = hashlib.sha256(SOURCE.read_bytes() + f"{VERSION} {prefix}".encode())
    return f"liboneccl-{digest.hexdigest()[:16]}.so"


def folders() -> tuple[Path, Path]:
    """Where the shim may lie: beside its source, or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return SOURCE.parent, cache / "segdist" / "ccl"


def find_built() -> Path | None:
    """The built shim, or None."""
    return next((folder / built_name() for folder in folders() if (folder / built_name()).is_file()), None)


def build(prefix: Path = Path(sys.prefix)) -> Path:
    """Compile the shim, or give the one that is there.

    Raises:
        BuildError: without a compiler or oneCCL's packages, or where the compiler fails.
    """
    found = find_built()
    if found is not None:
        return found
    if not (prefix / "include/oneapi/ccl.hpp").is_file():
        raise BuildError(f"pip install oneccl-cpu=={VERSION} oneccl-cpu-devel=={VERSION} impi-rt==2021.15.0")
    beside, cache = folders()
    folder = beside if os.access(beside, os.W_OK) else cache
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        made = Path(scratch) / "shim.so"
        command = [
            os.environ.get("CXX", "g++"), "-std=c++17", "-O2", "-fPIC", "-shared", str(SOURCE),
            f"-I{prefix}/include", f"{prefix}/lib/libccl.so.1", f"-Wl,-rpath,{prefix}/lib", "-o", str(made),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise BuildError(f"{command[0]}: no such compiler; install g++, or set CXX") from error
        except subprocess.CalledProcessError as error:
            raise BuildError(f"{command[0]} failed: {error.stderr[-2000:]}") from error
        made.replace(folder / built_name(prefix))
    return folder / built_name(prefix)


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as error:
        sys.exit(f"error: oneCCL's shim is not built: {error}")
