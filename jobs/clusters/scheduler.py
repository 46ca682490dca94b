"""What every scheduler does for a run: show the scripts, submit, look, cancel."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from jobs.planning.resources import Profile, Resources
from jobs.record.entry import Entry
from jobs.record.run_json import Job, Step
from segdist.config import ConfigError
from segdist.run.folder import RunFolder


class SubmitError(RuntimeError):
    """The job could not be started. The message says what the scheduler said."""


NOWHERE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class PlannedRun:
    """One run that is to be submitted: its folder, its steps, and where submitit keeps the job's files."""

    run: RunFolder
    steps: tuple[Step, ...]
    submitit_folder: str
    cwd: str


def place_of(planned: Sequence[PlannedRun], step: Step) -> tuple[Path, str]:
    """Where submitit keeps the files of a step's job, of all runs of a sweep together, and the job's name."""
    first = planned[0]
    base = first.run.path if len(planned) == 1 else first.run.path.parent
    return (base / first.submitit_folder).resolve(), f"{base.resolve().name}-{step.step.replace('/', '-')}"


def submit_steps(
    cluster: str,
    title: str,
    planned: Sequence[PlannedRun],
    executor_of: Callable[[Step, Mapping[str, str]], Any],
    withdraw: Callable[[Mapping[str, str]], None],
) -> list[tuple[Job, ...]]:
    """Submit the steps in order, each after those that it waits for; a sweep's runs are an array a step.

    Args:
        cluster: its name in the jobs.
        title: its name for people.
        planned: the runs.
        executor_of: submitit's executor for a step, from the ids of the jobs before it, by step.
        withdraw: takes back the jobs with these ids, by step; called where one is refused.

    Returns:
        the jobs of each run.

    Raises:
        SubmitError: where the scheduler refuses.
        ConfigError: for a value that it does not know.
    """
    from jobs.runner.run import run_steps

    ids: dict[str, str] = {}
    found: list[list[Job]] = [[] for _ in planned]
    runs = [str(plan.run.path.resolve()) for plan in planned]
    try:
        for step in planned[0].steps:
            jobs = executor_of(step, ids).map_array(run_steps, runs, [(step.step,)] * len(runs))
            ids[step.step] = jobs[0].job_id.partition("_")[0]
            for jobs_of_run, job, plan in zip(found, jobs, planned):
                output = str(job.paths.stdout)
                jobs_of_run.append(
                    Job(cluster, job.job_id, socket.gethostname(), (step.step,), plan.submitit_folder, output)
                )
    except Exception as error:
        if ids:
            withdraw(ids)
        if isinstance(error, ConfigError):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise SubmitError(f"{step.label}: {title} did not take the job: {said[-1]}") from error
    return [tuple(jobs_of_run) for jobs_of_run in found]


class Scheduler(Protocol):
    """A cluster. Several runs that are submitted together have the same steps: they are a sweep."""

    def scripts(self, planned: Sequence[PlannedRun], resources: Resources, profile: Profile) -> Mapping[str, str]:
        """The exact text of each job's script, by step; touches nothing."""

    def submit(
        self, planned: Sequence[PlannedRun], resources: Resources, profile: Profile
    ) -> Sequence[tuple[Job, ...]]:
        """Submit every step of every run; returns the jobs of each run.

        Raises:
            SubmitError: where the scheduler refuses; what it had taken by then is cancelled.
        """

    def query(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> Mapping[str, Entry]:
        """What is known about those jobs, in one call to the scheduler; all of them are in the answer.

        ``outputs`` says where their batch scripts print, by id: other files of a job are beside that one.
        """

    def cancel(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> None:
        """Ask the scheduler to end those jobs.

        Raises:
            SubmitError: where it refuses.
        """
