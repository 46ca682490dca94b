"""Names of run folders: one that is free, and those that a scheduler or submitit would read as something else."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from jobs.planning.submissions import PipelineSubmission, Submission, TrainSubmission
from segdist.config import require

_SUBMITIT = re.compile(r"%[jtAa]")


def unused_run(task: str, submission: Submission) -> str:
    """A run folder that is not there yet: ``runs/<model or task>-<time>``."""
    named = isinstance(submission, TrainSubmission | PipelineSubmission)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = f"runs/{submission.net.model if named else task}-{stamp}"  # type: ignore[union-attr]
    name, number = base, 1
    while Path(name).exists():
        number += 1
        name = f"{base}-{number}"
    return name


def check_folder_name(run: Path, cluster: str) -> None:
    """Refuse a run folder in whose path a pattern or an escape would be read.

    Slurm expands ``%`` in the names of its output files and reads a backslash as "expand nothing"; submitit puts the
    job's numbers for ``%j``, ``%t``, ``%A`` and ``%a`` on every cluster.

    Raises:
        ConfigError: naming the path, what is wrong with it, and the fix.
    """
    path = str(run.resolve())
    if cluster == "slurm":
        require("%" not in path, f"--run {path}: Slurm expands % in the names of its files; give a path without %")
    found = _SUBMITIT.search(path)
    require(
        found is None,
        f"--run {path}: {found and found[0]} stands for a job's number in the names of its files; give a path without",
    )
    require(
        cluster == "local" or "\\" not in path,
        f"--run {path}: has a backslash, which the scheduler reads as an escape; give a path without",
    )
    longest = max((len(part.encode()) for part in run.parts), default=0)
    require(longest <= 255, f"--run …{path[-60:]}: has a name of {longest} bytes; give at most 255")
