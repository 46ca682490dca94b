"""Where a job runs: this machine, Slurm or PBS."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from segdist.config import ConfigError

if TYPE_CHECKING:
    from jobs.clusters.scheduler import Scheduler

_SUBMIT_COMMANDS = {"slurm": "sbatch", "pbs": "qsub"}


def choose_cluster(
    asked: str, which: Callable[[str], str | None] = shutil.which, dry_run: bool = False
) -> tuple[str, str]:
    """The cluster to submit to, and why; ``asked`` is auto, local, slurm or pbs.

    A dry run needs no scheduler.

    Raises:
        ConfigError: for a scheduler that was asked for and is not on PATH.
    """
    if asked == "local":
        return "local", "asked for"
    for cluster, command in _SUBMIT_COMMANDS.items():
        found = which(command) is not None
        if asked == cluster or (asked == "auto" and found):
            if not found and not dry_run:
                raise ConfigError(
                    f"--cluster {asked}: {command} is not on PATH; submit on a login node of the cluster, "
                    "or give --cluster local"
                )
            return cluster, f"{command} is on PATH" if asked == "auto" else "asked for"
    return "local", "neither sbatch nor qsub is on PATH"


def get_scheduler(cluster: str, dialect: str = "auto") -> Scheduler:
    """The scheduler of that name: slurm or pbs; ``dialect`` is of PBS.

    Raises:
        ConfigError: for another one, as in a run folder of a later version.
    """
    if cluster == "slurm":
        from jobs.clusters.slurm.cluster import Slurm

        return Slurm()
    if cluster == "pbs":
        from jobs.clusters.pbs.cluster import Pbs

        return Pbs(dialect)
    raise ConfigError(f"cluster {cluster!r}: is not known to this version; use the version that submitted the job")
