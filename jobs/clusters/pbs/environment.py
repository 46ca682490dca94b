"""Who a process of a PBS job is, in submitit's terms."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from submitit.core import job_environment

from jobs.clusters.pbs.continuation import Continuation
from jobs.clusters.pbs.script_functions import ID
from segdist.launch.pbs_job import short_id

NO_LIMIT_MIN = 10 * 366 * 24 * 60
"""Minutes that no job lasts."""


class PbsJobEnvironment(job_environment.JobEnvironment):
    """The environment of a task. Its job id is that of the first job, also in one that continues it."""

    _env: ClassVar[dict[str, str]] = {
        "job_id": "PBS_JOBID",
        "num_tasks": "SUBMITIT_PBS_NUM_TASKS",
        "num_nodes": "SUBMITIT_PBS_NUM_NODES",
        "node": "SUBMITIT_PBS_NODE",
        "nodes": "SUBMITIT_PBS_HOSTS",
        "global_rank": "SUBMITIT_PBS_RANK",
        "local_rank": "SUBMITIT_PBS_LOCAL_RANK",
    }

    @property
    def job_id(self) -> str:
        """``2``, or ``47_3`` for an element of an array."""
        return os.environ.get(ID) or short_id(self.raw_job_id)

    @property
    def array_job_id(self) -> str | None:
        """``47`` of ``47_3``."""
        number, _, index = self.job_id.partition("_")
        return number if index else None

    @property
    def array_task_id(self) -> str | None:
        """``3`` of ``47_3``."""
        return self.job_id.partition("_")[2] or None

    @property
    def hostnames(self) -> Sequence[str]:
        """The job's hosts in the order of its node file, which only the first node has: others are told."""
        told = os.environ.get(self._env["nodes"], "")
        if told:
            return re.split(r"[,\s]+", told)
        try:
            return list(dict.fromkeys(Path(os.environ["PBS_NODEFILE"]).read_text(encoding="utf-8").split()))
        except (KeyError, OSError):
            return [self.hostname]

    def _handle_signals(self, paths: Any, submission: Any) -> None:
        """Without a walltime of its own a job is never timed out, only ended early: submitit counts with a number."""
        if submission._timeout_min is None:
            submission._timeout_min = NO_LIMIT_MIN
        super()._handle_signals(paths, submission)

    def _requeue(self, countdown: int) -> None:
        """Let the script submit the job again: users may not qrerun."""
        Continuation(self.paths.folder, self.job_id).ask_requeue()
