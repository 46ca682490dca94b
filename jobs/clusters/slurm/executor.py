"""submitit's Slurm executor, for a function that runs once per job, on the first node."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import SlurmJob

from jobs.clusters.directives import finish_script
from jobs.clusters.request import Request
from jobs.clusters.submission_file import LinklessJob


class BatchJob(LinklessJob, SlurmJob[Any]):
    """As submitit's."""


HOLD_WARNING = "$(env --block-signal=USR1 echo env --block-signal=USR1 2>/dev/null)"
"""Shell words before a command: the warning of the time limit waits until the program is ready for it, however long it
takes to start. Empty where ``env`` is older than coreutils 8.31."""
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT")


def submit_command(script: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """The command that submits a script, without what an allocation around it says of tasks and memory.

    sbatch hands its environment on to the job, where srun would take that for options of its own.
    """
    left: Sequence[str] = ()
    if "SLURM_JOB_ID" in environ:
        outer = ("SLURM_", "SRUN_", "SBATCH_CPU_BIND", "SBATCH_MEM_BIND")
        left = sorted(name for name in environ if name.startswith(outer) and name not in _KEPT)
    unset = [f"--unset={name}" for name in left]
    return [*(["env", *unset] if unset else []), "sbatch", script]


class BatchExecutor(submitit.SlurmExecutor):
    """As submitit's, but the batch shell becomes the function's process: signals for the script then reach it.

    ``request`` is the class's own, as submitit makes a second executor of the same class for an array.
    """

    request: Request
    job_class = BatchJob

    @property
    def _submitit_command_str(self) -> str:
        return f"exec {HOLD_WARNING} {super()._submitit_command_str}"

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return submit_command(str(submission_file_path))

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        request = self.request
        if request.is_array:
            self.parameters["map_count"] = request.elements
        text = super()._make_submission_file_text(command, uid)
        return finish_script(text, "#SBATCH", request.made_by, request.add_directives, request.remove_directives)

    @classmethod
    def affinity(cls) -> int:
        """A script can be shown where there is no Slurm."""
        return 2


def executor_of(job: Request) -> BatchExecutor:
    """The executor that submits a request."""

    class Executor(BatchExecutor):
        request = job

    executor = Executor(job.folder, python=job.python or None)
    executor.update_parameters(**parameters(job))
    return executor


def parameters(request: Request) -> dict[str, Any]:
    """submitit's parameters for a request.

    The signal goes to the batch script alone, which has become the runner: it decides about the requeue, and the
    launcher passes it on to the ranks. A step whose dependency has failed is ended by Slurm and does not wait for ever.
    """
    more: dict[str, Any] = {
        "chdir": request.cwd,
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        "signal": f"B:{request.signal}@{request.save_margin_s}",
    }
    if request.after_ids:
        kind = "afterany" if request.after_any else ("aftercorr" if request.is_array else "afterok")
        more["dependency"] = ":".join([kind, *request.after_ids])
    for option in request.options:
        key, equals, value = option.lstrip("-").partition("=")
        more[key] = value if equals else True
    return {
        "job_name": request.name,
        "nodes": request.nodes,
        "ntasks_per_node": request.ranks_per_node,
        "cpus_per_task": max(1, request.cores // request.ranks_per_node) if request.cores else None,
        "time": math.ceil(request.walltime_s / 60) if request.walltime_s else None,
        "partition": request.queue or None,
        "account": request.account or None,
        "constraint": ":".join(request.properties) or None,
        "array_parallelism": request.throttle or 100_000,
        "setup": list(request.setup) or None,
        "stderr_to_stdout": request.stderr_to_stdout,
        "use_srun": False,
        "wckey": None,
        "additional_parameters": more,
    }
