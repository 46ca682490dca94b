"""What every scheduler does for a run: show the scripts, submit, query, cancel."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from jobs.clusters.request import Request
from jobs.record.entry import Entry
from jobs.record.run_json import Job, PlannedRun, Step
from segdist.config import ConfigError


class SubmitError(RuntimeError):
    """The job could not be started. The message says what the scheduler said."""


NOWHERE: Mapping[str, str] = MappingProxyType({})


class Scheduler(Protocol):
    """A cluster."""

    name: str
    """As in run.json."""
    title: str
    """For people."""

    def executor(self, request: Request) -> Any:
        """submitit's executor for a request: it makes the script's text, and submits it.

        Raises:
            ConfigError: for a value that the cluster does not know.
        """

    def submit_command(self, request: Request, script: str) -> list[str]:
        """The command that submits a script."""

    def withdraw(self, ids: Sequence[str], arrays: bool) -> None:
        """Take back jobs, or whole arrays, of a submission that was refused later on."""

    def tidy(self, planned: Sequence[PlannedRun], jobs: Sequence[tuple[Job, ...]]) -> None:
        """What is left to do when every step of every run is submitted."""

    def query(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> Mapping[str, Entry]:
        """What is known about those jobs, in one call to the scheduler; all of them are in the answer.

        ``outputs`` says where their batch scripts print, by id: other files of a job are beside that one.
        """

    def cancel(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> None:
        """Ask the scheduler to end those jobs.

        Raises:
            SubmitError: where it refuses.
        """


MakeRequest = Callable[[Step, Mapping[str, str]], Request]
"""The request for a step, from the ids of the jobs before it, by step."""


@dataclass(frozen=True)
class Script:
    """The script of one step's job, to the letter, and the command that submits it."""

    step: str
    text: str
    submitted_by: str


def scripts(scheduler: Scheduler, steps: Sequence[Step], make_request: MakeRequest) -> list[Script]:
    """What would be submitted; ids of other jobs stand as ``ID_OF_STEP``. Touches nothing."""
    found = []
    for step in steps:
        request = make_request(step, {name: f"ID_OF_{name}" for name in step.after})
        executor = scheduler.executor(request)
        text = executor._make_submission_file_text(executor._submitit_command_str, "")
        command = shlex.join(scheduler.submit_command(request, "SCRIPT"))
        found.append(Script(step.step, text, command))
    return found


def submit_steps(
    scheduler: Scheduler,
    planned: Sequence[PlannedRun],
    make_request: MakeRequest,
    on_jobs: Callable[[Sequence[tuple[Job, ...]]], None],
) -> list[tuple[Job, ...]]:
    """Submit the steps in order, each after those that it waits for; a sweep's runs are an array a step.

    Args:
        scheduler: where to.
        planned: the runs; all have the same steps.
        make_request: for a step.
        on_jobs: told after each step, and once more where all is taken back, which jobs each run has.

    Returns:
        the jobs of each run.

    Raises:
        SubmitError: where the scheduler refuses; what it had taken by then is cancelled.
        ConfigError: for a value that it does not know.
    """
    from jobs.runner.run import run_steps

    ids: dict[str, str] = {}
    found: list[tuple[Job, ...]] = [() for _ in planned]
    runs = [str(plan.run.path.resolve()) for plan in planned]
    step = planned[0].steps[0]
    try:
        for step in planned[0].steps:
            executor = scheduler.executor(make_request(step, ids))
            jobs = executor.map_array(run_steps, runs, [(step.step,)] * len(runs))
            ids[step.step] = jobs[0].job_id.partition("_")[0]
            found = [
                (*before, _job(scheduler.name, step, plan, job)) for before, plan, job in zip(found, planned, jobs)
            ]
            on_jobs(found)
        scheduler.tidy(planned, found)
    except BaseException as error:  # an interrupt, too: half a pipeline is of no use
        if ids:
            scheduler.withdraw(list(ids.values()), len(planned) > 1)
            on_jobs([() for _ in planned])
        if isinstance(error, ConfigError | SubmitError) or not isinstance(error, Exception):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise SubmitError(f"{step.label}: {scheduler.title} did not take the job: {said[-1]}") from error
    return found


def _job(cluster: str, step: Step, plan: PlannedRun, job: Any) -> Job:
    """A job of submitit as ``run.json`` has it."""
    output = str(job.paths.stdout)
    return Job(cluster, job.job_id, socket.gethostname(), (step.step,), plan.submitit_folder, output)
