"""``run.json``: what was asked for, the steps in order, and the jobs that run them; plain data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import ResultError

SCHEMA_VERSION = 2


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
class JobSpec:
    """``run.json``: what was asked for, by which command, which versions; ``earlier`` has those before.

    ``slot`` is for the runs of a sweep on the local cluster: a file to hold a lock on while at work.
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
    jobs: tuple[Job, ...]
    slot: str = ""
    earlier: tuple[dict[str, Any], ...] = ()
    schema_version: int = SCHEMA_VERSION

    def job_of(self, step: str) -> Job:
        """The job that runs a step."""
        return next(job for job in self.jobs if step in job.steps)


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
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultError(f"{path}: is missing; give a run folder that jobs.submit has made") from error
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: cannot be read as JSON ({error}); copy the run folder again") from error
    found = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
    if found != SCHEMA_VERSION:
        raise ResultError(
            f"{path}: has schema {found!r}, this version reads {SCHEMA_VERSION}; use the version that wrote it"
        )
    try:
        steps = tuple(Step(**_tuples(step, "command", "after")) for step in values["steps"])
        jobs = tuple(Job(**_tuples(job, "steps")) for job in values["jobs"])
        spec = JobSpec(**{**_tuples(values, "command", "earlier"), "jobs": jobs, "steps": steps})
        for step in spec.steps:
            spec.job_of(step.step)
        return spec
    except (KeyError, TypeError, StopIteration) as error:
        raise ResultError(f"{path}: lacks a field or has a foreign one ({error}); copy the run folder again") from error


def _tuples(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {**values, **{key: tuple(values[key]) for key in keys}}


def step_names(steps: Sequence[Step]) -> str:
    """The steps in one line: ``train → evaluate fp32``."""
    return " → ".join(step.label for step in steps)
