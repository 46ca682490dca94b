"""What a run and its steps can be: the states, and how they follow from results and jobs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.record.entry import NOT_KNOWN, Entry
from jobs.record.job_folder import launcher_log
from jobs.record.run_json import Job, JobSpec
from segdist.config import ConfigError
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import Result

State = Literal["waiting", "running", "completed", "failed", "skipped", "unknown"]


@dataclass(frozen=True)
class StepState:
    """One step now. ``error``: why it failed, was skipped or is unknown; ``progress``: its last epoch.

    ``epoch_s`` is how long that epoch took, validation included; ``within`` is how far a running training has come in
    the midst of an epoch; ``entry`` what the scheduler says about its job.
    """

    step: str
    task: str
    name: str
    folder: StepFolder
    state: State
    error: str | None = None
    result: Result | None = None
    started_at: str | None = None
    elapsed_s: float | None = None
    progress: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    epoch_s: float | None = None
    within: dict[str, Any] = dataclasses.field(default_factory=dict)
    job: Job | None = None
    entry: Entry = NOT_KNOWN

    @property
    def label(self) -> str:
        """How people call it: ``train``, ``evaluate int8``."""
        return self.step.replace("/", " ")

    def config_group(self, name: str) -> dict[str, Any]:
        """One group of its config.json, such as training; empty where it is not there."""
        group = self.config.get(name)
        return group if isinstance(group, dict) else {}

    @property
    def launcher_log(self) -> Path:
        """The output of the command that ran the step."""
        return launcher_log(self.folder)

    @property
    def last_error_line(self) -> str:
        """The last line of the error, or nothing."""
        return (self.error or "").strip().splitlines()[-1] if (self.error or "").strip() else ""


@dataclass(frozen=True)
class RunState:
    """One run now. ``alive`` is None where another host has to be asked, ``spec`` without a run.json."""

    folder: RunFolder
    spec: JobSpec | None
    alive: bool | None
    steps: tuple[StepState, ...]
    note: str = ""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs, none while the run is being submitted; raises ConfigError for a run without a run.json."""
        if self.spec is None:
            raise ConfigError(self.note)
        return self.spec.jobs

    @property
    def entries(self) -> list[tuple[Job, Entry]]:
        """Each job of the run with what its scheduler says."""
        found = {step.job.id: (step.job, step.entry) for step in self.own_steps if step.job is not None}
        return list(found.values())

    @property
    def job_folder(self) -> Path:
        """The folder of the job's own files; raises ConfigError for a run that has no job."""
        if self.spec is None:
            raise ConfigError(self.note)
        return self.folder.path / self.spec.submitit_folder

    @property
    def own_steps(self) -> list[StepState]:
        """The steps of the present job, without those of earlier ones."""
        own = {step.step for step in self.spec.steps} if self.spec else set()
        return [step for step in self.steps if step.step in own]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        if self.alive is None:
            return all(step.result is not None for step in self.own_steps)
        return not self.alive

    @property
    def exit_code(self) -> int:
        """The exit code, once all has ended: that of the first step that failed; 1 where it left none."""
        codes: dict[str, int] = {}
        for outcome in self.job_folder.glob("outcome*.json"):
            codes |= json.loads(outcome.read_text(encoding="utf-8"))["steps"]
        for step in self.own_steps:
            if step.state == "failed" or codes.get(step.step):
                return codes.get(step.step) or 1
        return 0 if all(step.state == "completed" for step in self.own_steps) else 1


def derive_states(results: Sequence[Result | None], started: Sequence[bool], alive: bool | None) -> list[State]:
    """The state of each step of one job, from the results that are there and whether the job is alive.

    The steps of one job run one after the other: the first without a result is at work, or was when the job died,
    unless one before it had failed.
    """
    states: list[State] = []
    first = True
    for result, has_started in zip(results, started):
        if result is not None:
            states.append(result.status)
            continue
        if alive is None:
            states.append("unknown" if first else "waiting")
        elif alive:
            states.append("running" if first and has_started else "waiting")
        else:
            states.append("failed" if first and "failed" not in states else "skipped")
        first = False
    return states


def find_step(steps: Sequence[StepState], asked: str) -> StepState:
    """The step of that folder or label (``evaluate/int8``, ``evaluate int8``), or of that name (``int8``).

    Raises:
        ConfigError: where there is none; the message lists the steps.
    """
    for step in steps:
        if asked in (step.step, step.label, step.name):
            return step
    known = ", ".join(step.step for step in steps)
    raise ConfigError(f"--step {asked}: is no step of this run; give one of {known}")
