"""Where a job runs. This version submits to the local machine; the job scripts serve Slurm and PBS."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from segdist.config import ConfigError

_SCHEDULERS = {"slurm": ("Slurm", "sbatch", "slurm/"), "pbs": ("PBS", "qsub", "pbs/")}


def choose_cluster(asked: str, which: Callable[[str], str | None] = shutil.which) -> tuple[str, str]:
    """The cluster to submit to, and why; ``asked`` is auto, local, slurm or pbs.

    Raises:
        ConfigError: for Slurm and PBS, asked for or found.
    """
    if asked == "local":
        return "local", "asked for"
    for cluster, (name, command, scripts) in _SCHEDULERS.items():
        if asked == cluster or (asked == "auto" and which(command)):
            found = f" ({command} is on PATH)" if asked == "auto" else ""
            raise ConfigError(
                f"--cluster {asked}{found}: {name} submission is not part of this version; "
                f"use --cluster local, or the job scripts in {scripts}"
            )
    return "local", "neither sbatch nor qsub is on PATH"
