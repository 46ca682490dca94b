"""``run.json``: what was asked for, the steps in order, and the jobs that run them; plain data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segdist.run.files import read_text, write_json
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import ResultError, UnreadableResult, foreign_schema

SCHEMA_VERSION = 3
FORMER_SCHEMA_VERSION = 2
"""Of version 0.1: there is a job for every step, and the jobs name their folder."""

SubmissionState = Literal["submitting", "submitted", "refused"]


@dataclass(frozen=True)
class Step:
    """One step of a job. ``step`` is its folder within the run: train, evaluate/NAME, quantize or report.

    It runs when the steps in ``after`` are completed; one with ``always`` when they have ended in whatever way.
    """

    step: str
    task: str
    name: str
    nodes: int
    ranks_per_node: int
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    always: bool = False

    @property
    def label(self) -> str:
        """How people call it: ``train``, ``evaluate int8``."""
        return self.step.replace("/", " ")

    def folder(self, run: RunFolder) -> StepFolder:
        """Where its files are."""
        return run.step(self.task, self.name)


@dataclass(frozen=True)
class Job:
    """One job of the scheduler: enough to find it again from another shell on another day.

    ``steps`` are those it runs, one after the other. ``submitit_folder``, relative to the run, has the job's own
    files; ``output`` is what the batch script printed. On the local cluster ``pid`` and ``pid_started`` name one
    process for good (see :func:`jobs.record.processes.process_started`), and ``token`` is in the environment of every
    process of the job.
    """

    cluster: str
    id: str
    host: str
    steps: tuple[str, ...]
    submitit_folder: str
    output: str = ""
    pid: int = 0
    pid_started: str = ""
    token: str = ""


@dataclass(frozen=True)
class PlannedRun:
    """One run that is to be submitted: its folder, its steps, and where submitit keeps the job's files.

    ``made_by`` is the command that submits it.
    """

    run: RunFolder
    steps: tuple[Step, ...]
    submitit_folder: str
    cwd: str
    made_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submitter:
    """The process that submits: enough to see whether it is still at it (:func:`jobs.record.processes.is_alive`)."""

    host: str
    pid: int
    pid_started: str


@dataclass(frozen=True)
class JobSpec:
    """``run.json``: what was asked for, by which command, which versions; ``earlier`` has those before.

    It is whole before anything is submitted, with the state "submitting"; ``jobs`` are added as the scheduler takes
    them, and then it is "submitted". One that the scheduler refused is "refused", and ``note`` says why. So a job that
    starts at once, and whoever looks after an interruption, finds what is true.

    ``submitit_folder``, relative to the run, has the jobs' own files. ``token`` marks the processes of a job of the
    local cluster. ``slot`` is for the runs of a sweep there: a file to hold a lock on while at work.
    """

    run: str
    task: str
    created_at: str
    command: tuple[str, ...]
    cwd: str
    resources: dict[str, Any]
    profile: dict[str, Any]
    steps: tuple[Step, ...]
    versions: dict[str, str]
    submitit_folder: str
    cluster: str
    jobs: tuple[Job, ...] = ()
    state: SubmissionState = "submitted"
    note: str = ""
    submitter: Submitter | None = None
    token: str = ""
    slot: str = ""
    earlier: tuple[dict[str, Any], ...] = ()
    schema_version: int = SCHEMA_VERSION

    def job_of(self, step: str) -> Job | None:
        """The job that runs a step; None for one that was not submitted."""
        return next((job for job in self.jobs if step in job.steps), None)

    def with_jobs(self, jobs: Sequence[Job]) -> JobSpec:
        """The same with the jobs that there are; "submitted" where they run every step."""
        complete = {step for job in jobs for step in job.steps} >= {step.step for step in self.steps}
        return dataclasses.replace(self, jobs=tuple(jobs), state="submitted" if complete else "submitting")


def to_plain(spec: JobSpec) -> dict[str, Any]:
    """The record as JSON values, the schema version first."""
    plain = dataclasses.asdict(spec)
    return {"schema_version": plain.pop("schema_version"), **plain}


def read_spec(path: Path) -> JobSpec:
    """Read a ``run.json``.

    Raises:
        ResultError: where it is missing, not whole or of another schema; the message names the file.
    """
    try:
        values = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise ResultError(f"{path}: is missing; give a run folder that jobs.submit has made") from error
    except OSError as error:
        raise UnreadableResult(error) from error
    except ValueError as error:
        raise ResultError(f"{path}: cannot be read as JSON ({error}); copy the run folder again") from error
    found = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
    if found not in (FORMER_SCHEMA_VERSION, SCHEMA_VERSION):
        raise ResultError(foreign_schema(path, values, f"{FORMER_SCHEMA_VERSION} and {SCHEMA_VERSION}"))
    try:
        if found == FORMER_SCHEMA_VERSION:
            first = values["jobs"][0]
            values |= {"schema_version": SCHEMA_VERSION, "cluster": first["cluster"], "token": first["token"]}
            values["submitit_folder"] = first["submitit_folder"]
        steps = tuple(Step(**_tuples(step, "command", "after")) for step in values["steps"])
        jobs = tuple(Job(**_tuples(job, "steps")) for job in values["jobs"])
        submitter = Submitter(**values["submitter"]) if values.get("submitter") else None
        plain = {**_tuples(values, "command", "earlier"), "jobs": jobs, "steps": steps, "submitter": submitter}
        spec = JobSpec(**plain)
        lacking = [step.step for step in steps if spec.state == "submitted" and spec.job_of(step.step) is None]
        if lacking:
            raise KeyError(f"no job for {lacking[0]}")
        return spec
    except (KeyError, TypeError, IndexError) as error:
        raise ResultError(f"{path}: lacks a field or has a foreign one ({error}); copy the run folder again") from error


def write_spec(path: Path, spec: JobSpec) -> None:
    """Write a ``run.json`` in one move."""
    write_json(path, to_plain(spec))


def _tuples(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {**values, **{key: tuple(values[key]) for key in keys}}


def step_names(steps: Sequence[Step]) -> str:
    """The steps in one line: ``train → evaluate fp32``."""
    return " → ".join(step.label for step in steps)
