"""The truth about a run: what its folder says, and whether the job's process is alive."""

from __future__ import annotations

import dataclasses
import datetime
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobs.processes import job_alive
from jobs.spec import Job, JobSpec, read_spec
from segdist.config import ConfigError
from segdist.results import Result, ResultError, RunFolder, StepFolder, read_metrics, utc_now

State = Literal["waiting", "running", "completed", "failed", "skipped", "unknown"]


_KINDS: dict[str, tuple[type, ...]] = {
    "metrics": (dict,),
    "error": (str, type(None)),
    "elapsed_s": (int, float, type(None)),
    "started_at": (str,),
    "ended_at": (str, type(None)),
}


@dataclass(frozen=True)
class StepState:
    """One step now. ``error``: why it failed, was skipped or is unknown; ``progress``: its last epoch."""

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
    def job(self) -> Job:
        """The job; raises ConfigError for a run that has none."""
        if self.spec is None:
            raise ConfigError(self.note)
        return self.spec.job

    @property
    def job_folder(self) -> Path:
        """The folder of the job's own files; raises ConfigError for a run that has no job."""
        return self.folder.path / self.job.submitit_folder

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
        """The job's exit code, once it has ended: that of its first failed step; 1 where it vanished."""
        try:
            outcome = json.loads((self.job_folder / "outcome.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 1
        return int(outcome["exit_code"])


def launcher_log(folder: StepFolder) -> Path:
    """Where the runner puts the output of a step's command."""
    return folder.logs / "launch.log"


def judge(results: Sequence[Result | None], started: Sequence[bool], alive: bool | None) -> list[State]:
    """The state of each step of one job, from the results that are there and whether the job is alive.

    Steps run one after the other: the first without a result is at work, or was when the job died, unless one
    before it had failed.
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


def read_run(path: Path, now: str | None = None) -> RunState:
    """Read a run folder: its steps in the order in which they run, each with its state."""
    run = RunFolder(path)
    spec: JobSpec | None = None
    note = ""
    try:
        spec = read_spec(run.run_json)
    except ResultError as error:
        note = str(error)
    # The job first, then its files: what a job leaves behind is there before it ends.
    alive = job_alive(spec.job) if spec else False
    own = _own_steps(run, spec, alive, now or utc_now()) if spec else []
    listed = {step.step for step in own}
    others = (_step_without_job(run, folder) for folder in run.steps())
    steps = sorted([*own, *(s for s in others if s and s.step not in listed)], key=_pipeline_order)
    return RunState(run, spec, alive, tuple(steps), note)


def _own_steps(run: RunFolder, spec: JobSpec, alive: bool | None, now: str) -> list[StepState]:
    folders = [step.folder(run) for step in spec.steps]
    results = [_read_result(folder) for folder in folders]
    states = judge([result for result, _ in results], [launcher_log(f).exists() for f in folders], alive)
    steps = []
    since = spec.created_at
    for step, folder, state, (result, broken) in zip(spec.steps, folders, states, results):
        elapsed = seconds_between(since, now) if state == "running" else None
        if result is not None and state != "skipped":
            elapsed = result.elapsed_s
        error = result.error if result else _why_open(spec.job, state, broken)
        progress, broken_metrics = _progress(folder)
        steps.append(
            StepState(
                step.step, step.task, step.name, folder, state, error or broken_metrics, result,
                result.started_at if result else since, elapsed, progress, _config(folder),
            )
        )  # fmt: skip
        since = max(since, (result.ended_at if result else None) or since)
    return steps


def _step_without_job(run: RunFolder, folder: StepFolder) -> StepState | None:
    """A step of an earlier job, or one run by hand; None where the folder is not one of ours."""
    if not (folder.result_json.exists() or folder.config_json.exists()):
        return None
    result, broken = _read_result(folder)
    name = folder.path.relative_to(run.path).as_posix()
    progress, _ = _progress(folder)
    return StepState(
        name,
        folder.task,
        folder.name,
        folder,
        result.status if result else "unknown",
        result.error if result else broken or "no result.json, and no job is known to be at work on it",
        result,
        result.started_at if result else None,
        result.elapsed_s if result else None,
        progress,
        _config(folder),
    )


def _read_result(folder: StepFolder) -> tuple[Result | None, str | None]:
    """The result, or why a file that is there cannot be read."""
    if not folder.result_json.exists():
        return None, None
    try:
        result = folder.read_result()
    except ResultError as error:
        return None, str(error)
    for field, kinds in _KINDS.items():
        if not isinstance(getattr(result, field), kinds):
            return None, f"{folder.result_json}: {field} is of another kind; copy the run folder again"
    return result, None


def _why_open(job: Job, state: State, broken: str | None) -> str | None:
    where = f"job {job.id} on {job.host}"
    if state == "failed":
        return broken or f"the job is gone: {where} ended without a result; see {job.submitit_folder}"
    if state == "skipped":
        return f"the job is gone: {where} ended before this step"
    if state == "unknown":
        return f"{where} cannot be checked from here ({socket.gethostname()}); run this on {job.host}"
    return broken


def _progress(folder: StepFolder) -> tuple[dict[str, Any], str | None]:
    try:
        rows = read_metrics(folder.metrics_jsonl)
    except (ValueError, OSError) as error:
        return {}, str(error)
    return (rows[-1] if rows and isinstance(rows[-1], dict) else {}), None


def _config(folder: StepFolder) -> dict[str, Any]:
    try:
        values = json.loads(folder.config_json.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def seconds_between(start: str, end: str) -> float:
    """Seconds from one time of :func:`segdist.results.utc_now` to another."""
    form = "%Y-%m-%dT%H:%M:%SZ"
    return (datetime.datetime.strptime(end, form) - datetime.datetime.strptime(start, form)).total_seconds()


def _pipeline_order(step: StepState) -> tuple[int, str]:
    if step.task == "evaluate":
        return (3 if "int8" in step.name else 1), step.name
    return {"train": 0, "quantize": 2, "report": 4}.get(step.task, 5), step.name


def the_run(path: Path) -> RunState:
    """The state of one run that a job was submitted for.

    Raises:
        ConfigError: where the folder is none, or its run.json is missing or broken.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: is no folder; give the run folder that jobs.submit printed")
    state = read_run(path)
    if state.spec is None:
        raise ConfigError(state.note)
    return state


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


def cancelled_text(job_folder: Path) -> str | None:
    """``cancelled by USER at TIME`` where jobs.cancel has asked the job to stop."""
    try:
        values = json.loads((job_folder / "cancel.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return f"cancelled by {values['by']} at {values['at']}"
