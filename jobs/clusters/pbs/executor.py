"""submitit's executor and job for PBS: ``submitit.AutoExecutor(folder, cluster="pbs")``."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time as _time
import uuid
from pathlib import Path
from typing import Any, TypeVar

from submitit.core import core, utils

from jobs.clusters.pbs.continuation import Continuation
from jobs.clusters.pbs.dialect import Dialect, find_dialect
from jobs.clusters.pbs.parameters import Parameters, defaults
from jobs.clusters.pbs.qstat import pbs_id
from jobs.clusters.pbs.resources import submit_command
from jobs.clusters.pbs.script import script_text, shell_path
from jobs.clusters.pbs.watcher import PbsInfoWatcher
from jobs.clusters.submission_file import LinklessJob
from segdist.launch.pbs_job import short_id

R = TypeVar("R", covariant=True)


class PbsJob(LinklessJob, core.Job[R]):
    """A job of a PBS server, or one element of an array (``47_3``)."""

    _cancel_command = "qdel"
    watcher = PbsInfoWatcher(delay_s=60)

    @property
    def continuation(self) -> Continuation:
        """The job's own files; those of the task with number 0."""
        return Continuation(self.paths.folder, self.job_id)

    def _register_in_watcher(self) -> None:
        super()._register_in_watcher()
        if not self._tasks[0]:
            self.watcher.follow(self.job_id, self.paths.folder)

    def cancel(self, check: bool = True) -> None:
        """qdel the job that is at work for this one now."""
        (subprocess.check_call if check else subprocess.call)(
            [self._cancel_command, pbs_id(self.continuation.jobs[-1])]
        )

    def _interrupt(self, timeout: bool = False) -> None:
        """Let the job have the signal that comes before its time limit; PBS has no preemption to imitate."""
        self.continuation.ask_interrupt()


class PbsExecutor(core.PicklingExecutor):
    """Submits functions to PBS Pro, OpenPBS or Torque.

    The folder must be on storage that all nodes share. ``update_parameters`` lists what can be asked for when it is
    given something else. A function that runs as several tasks (``nodes`` × ``tasks_per_node``) is started on every
    node through what is there: pbs_tmrsh, pbsdsh, mpirun or ssh.
    """

    job_class = PbsJob

    def __init__(
        self,
        folder: str | Path,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
        python: str | None = None,
    ) -> None:
        super().__init__(folder, max_num_timeout=max_num_timeout, max_pickle_size_gb=max_pickle_size_gb)
        self.python = shlex.quote(sys.executable) if python is None else python
        if not self.affinity() > 0:
            raise RuntimeError('Could not detect "qsub", are you indeed on a PBS cluster?')

    @classmethod
    def _equivalence_dict(cls) -> core.EquivalenceDict:
        return {
            "name": "job_name",
            "timeout_min": "time",
            "mem_gb": "mem_gb",
            "nodes": "nodes",
            "cpus_per_task": "cpus_per_task",
            "gpus_per_node": "gpus_per_node",
            "tasks_per_node": "tasks_per_node",
        }

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return set(defaults())

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        foreign = sorted(set(kwargs) - set(defaults()))
        if foreign:
            known = "\n  - ".join(f"{name} (default: {value!r})" for name, value in sorted(defaults().items()))
            raise ValueError(f"Unavailable parameter(s): {foreign}\nValid parameters are:\n  - {known}")
        Parameters(**{**self.parameters, **kwargs}).request("true", str(self.folder))  # refuses values that cannot be
        super()._internal_update_parameters(**kwargs)

    def _dialect(self) -> Dialect:
        return find_dialect(self.parameters.get("dialect", "auto"))

    def _num_tasks(self) -> int:
        if not self.parameters.get("use_starter", True):
            return 1
        return self.parameters.get("nodes", 1) * max(1, self.parameters.get("tasks_per_node") or 1)

    @property
    def _submitit_command_str(self) -> str:
        command = f"{self.python} -u -m submitit.core._submit {shell_path(str(self.folder))}"
        if self._num_tasks() == 1:
            return command
        tasks = f"{self.python} -u -m jobs.clusters.pbs.multitask --nodes {self.parameters.get('nodes', 1)}"
        tasks += f" --tasks-per-node {max(1, self.parameters.get('tasks_per_node') or 1)}"
        tasks += f" --starter {shlex.quote(self.parameters.get('starter', 'auto'))}"
        return f'{tasks} --state "$state" -- {command}'

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        own = {name: value for name, value in self.parameters.items() if name != "map_count"}
        request = Parameters(**own).request(command, str(self.folder), several=self._num_tasks() > 1)
        return script_text(request, self._dialect())

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return submit_command(
            str(submission_file_path),
            self._dialect(),
            self.parameters.get("depend", ""),
            self.parameters.get("map_count", 0),
            self.parameters.get("array_parallelism") or 0,
        )

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        """The number in qsub's answer: ``2.pbshead`` or ``47[].pbshead``; a site may print lines before it."""
        text = string.decode() if isinstance(string, bytes) else string
        ids = re.findall(r"^(\d+(?:\[\])?(?:\.\S+)?)\s*$", text, re.MULTILINE)
        if not ids:
            raise utils.FailedSubmissionError(
                f'Could not make sense of qsub output "{text}"\nJob instance will not be able to fetch status'
            )
        return short_id(ids[-1])

    def _internal_process_submissions(self, delayed_submissions: list[utils.DelayedSubmission]) -> list[core.Job[Any]]:
        if len(delayed_submissions) == 1:  # an array of one is refused by PBS
            return super()._internal_process_submissions(delayed_submissions)
        folder = utils.JobPaths.get_first_id_independent_folder(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        pickles = []
        for delayed in delayed_submissions:
            pickle = folder / f"{uuid.uuid4().hex}.pkl"
            delayed.set_timeout(self.parameters.get("time", 5), self.max_num_timeout)
            delayed.dump(pickle)
            pickles.append(pickle)
        self._throttle()
        self._last_job_submitted = _time.time()
        number, script = self._submit_array(folder, len(delayed_submissions))
        tasks = list(range(self._num_tasks()))
        jobs: list[core.Job[Any]] = [
            PbsJob(folder=self.folder, job_id=f"{number}_{index}", tasks=tasks) for index in range(len(pickles))
        ]
        for job, pickle in zip(jobs, pickles):
            job.paths.move_temporary_file(pickle, "submitted_pickle")
        for path in dict.fromkeys(job.paths.submission_file for job in jobs):  # with %a in the folder there are many
            shutil.copyfile(script, path)
        script.unlink()
        return jobs

    def _submit_array(self, folder: Path, count: int) -> tuple[str, Path]:
        script = folder / f".submission_file_{uuid.uuid4().hex}.sh"
        script.write_text(self._make_submission_file_text(self._submitit_command_str, ""), encoding="utf-8")
        self.parameters["map_count"] = count
        try:
            command = self._make_submission_command(script)
        finally:
            del self.parameters["map_count"]
        output = utils.CommandFunction(command, verbose=False)()
        return self._get_job_id_from_submission_command(output), script

    @classmethod
    def affinity(cls) -> int:
        """2 where there is a qsub."""
        return -1 if shutil.which("qsub") is None else 2
