"""Reading a run folder: every step with its state, from the files and from what the schedulers say."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.record.entry import Entry
from jobs.record.job_folder import launcher_log, seconds_between
from jobs.record.processes import is_alive
from jobs.record.run_json import Job, JobSpec, Step, read_spec
from jobs.state.by_hand import holder_at_work
from jobs.state.model import RunState, State, StepState, derive_states
from jobs.state.poll import Queue, dialect_of
from segdist.config import ConfigError
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.lost_nodes import read_lost_nodes
from segdist.run.result import Result, ResultError, read_metrics, utc_now

_KINDS: dict[str, tuple[type, ...]] = {
    "metrics": (dict,),
    "error": (str, type(None)),
    "elapsed_s": (int, float, type(None)),
    "started_at": (str,),
    "ended_at": (str, type(None)),
}


def read_run(path: Path, now: str | None = None, queue: Queue | None = None) -> RunState:
    """Read a run folder: its steps in the order in which they run, each with its state."""
    run = RunFolder(path)
    spec: JobSpec | None = None
    note = ""
    try:
        spec = read_spec(run.run_json)
    except ResultError as error:
        note = str(error)
    own: list[StepState] = []
    alive: bool | None = False
    if spec is not None:
        # The jobs first, then their files: what a job leaves behind is there before it ends.
        queue = queue or Queue()
        queue.expect(spec.jobs, dialect_of(spec))
        entries = {job.id: queue.entry(job) for job in spec.jobs}
        own = _own_steps(run, spec, entries, now or utc_now())
        lives = [entry.alive for entry in entries.values()]
        if spec.state == "submitting" and spec.submitter is not None:
            lives.append(is_alive(spec.submitter))
        alive = True if True in lives else None if None in lives else False
    listed = {step.step for step in own}
    others = (_step_without_job(run, folder) for folder in run.steps())
    steps = sorted([*own, *(s for s in others if s and s.step not in listed)], key=_pipeline_order)
    return RunState(run, spec, alive, tuple(steps), note)


def read_runs(paths: Sequence[Path], queue: Queue | None = None) -> list[RunState]:
    """Read run folders, with one call to each scheduler for all their jobs."""
    queue = queue or Queue()
    for path in paths:
        try:
            spec = read_spec(RunFolder(path).run_json)
            queue.expect(spec.jobs, dialect_of(spec))
        except ResultError:  # read_run says what is amiss
            continue
    return [read_run(path, queue=queue) for path in paths]


def _own_steps(run: RunFolder, spec: JobSpec, entries: Mapping[str, Entry], now: str) -> list[StepState]:
    steps: list[StepState] = []
    by_name: dict[str, StepState] = {}
    for job in spec.jobs:
        entry = entries[job.id]
        folders = [step.folder(run) for step in spec.steps if step.step in job.steps]
        found = [_read_result(folder) for folder in folders]
        if entry.phase == "waiting":  # a failure that it is about to make good
            found = [(None if r is not None and r.status == "failed" else r, broken) for r, broken in found]
        started = [entry.phase != "waiting" and (launcher_log(f).exists() or job.cluster != "local") for f in folders]
        states = derive_states([result for result, _ in found], started, entry.alive)
        since = spec.created_at
        for name, folder, state, (result, broken) in zip(job.steps, folders, states, found):
            step = next(step for step in spec.steps if step.step == name)
            upstream = next((by_name[o] for o in step.after if by_name[o].state in ("failed", "skipped")), None)
            if state == "failed" and result is None and upstream is not None and not step.always:
                state = "skipped"
            files = _StepFiles(folder, result, broken, since, now)
            steps.append(_step_state(step, files, state, job, entry, upstream))
            by_name[name] = steps[-1]
            since = max(since, (result.ended_at if result else None) or since)
    return [*steps, *_unsubmitted_steps(run, spec)]


@dataclass(frozen=True)
class _StepFiles:
    """What a step's folder says: its result, or why that cannot be read, and since when it may have been at work."""

    folder: StepFolder
    result: Result | None
    broken: str | None
    since: str
    now: str


def _step_state(
    step: Step, files: _StepFiles, state: State, job: Job, entry: Entry, upstream: StepState | None
) -> StepState:
    folder, result = files.folder, files.result
    elapsed = entry.elapsed_s if job.cluster != "local" else seconds_between(files.since, files.now)
    elapsed = elapsed if state == "running" else None
    if result is not None and state != "skipped":
        elapsed = result.elapsed_s
    why = files.broken or _history(job, entry, folder) if state in ("waiting", "running") else files.broken
    error = result.error if result else _why_open(job, entry, state, why, upstream)
    progress, epoch_s, broken_metrics = _progress(folder)
    return StepState(
        step.step, step.task, step.name, folder, state, error or broken_metrics, result,
        result.started_at if result else files.since, elapsed, progress, _read_values(folder.config_json), epoch_s,
        _read_values(folder.progress_json) if state == "running" else {}, job, entry,
    )  # fmt: skip


def _unsubmitted_steps(run: RunFolder, spec: JobSpec) -> list[StepState]:
    """The steps that have no job: the submission is at it, was broken off, or was refused."""
    steps = [step for step in spec.steps if spec.job_of(step.step) is None]
    alive = is_alive(spec.submitter) if spec.submitter is not None and spec.state == "submitting" else False
    who = f"pid {spec.submitter.pid} on {spec.submitter.host}" if spec.submitter is not None else "an unknown process"
    if spec.state == "refused":
        why = spec.note
    elif alive is None:
        why = f"being submitted by {who}, which cannot be checked from here; run this there"
    elif alive:
        why = f"is being submitted by {who}"
    else:
        taken = ", ".join(f"{step} ({job.id})" for job in spec.jobs for step in job.steps) or "nothing"
        why = f"the submission was broken off: {taken} was submitted; submit the run again"
    states = derive_states([None] * len(steps), [False] * len(steps), alive)
    return [
        StepState(
            step.step, step.task, step.name, step.folder(run), state, why, started_at=spec.created_at,
            config=_read_values(step.folder(run).config_json),
        )
        for step, state in zip(steps, states)
    ]  # fmt: skip


def _step_without_job(run: RunFolder, folder: StepFolder) -> StepState | None:
    """A step of an earlier job, or one run by hand; None where the folder is not one of ours."""
    if not (folder.result_json.exists() or folder.config_json.exists()):
        return None
    result, broken = _read_result(folder)
    holder = None if result is not None or broken else holder_at_work(folder)
    open_state: State = "running" if holder else "unknown"
    why = f"{holder} is at work on it" if holder else "no result.json, and no job is known to be at work on it"
    name = folder.path.relative_to(run.path).as_posix()
    progress, _, _ = _progress(folder)
    return StepState(
        name,
        folder.task,
        folder.name,
        folder,
        result.status if result else open_state,
        result.error if result else broken or why,
        result,
        result.started_at if result else None,
        result.elapsed_s if result else None,
        progress,
        _read_values(folder.config_json),
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


def _why_open(job: Job, entry: Entry, state: State, broken: str | None, upstream: StepState | None) -> str | None:
    where = f"job {job.id} on {job.host}" if job.cluster == "local" else f"{job.cluster} job {job.id}"
    if state == "failed":
        return broken or f"the job is gone: {where} ended{_how(entry)} without a result; see {_look_at(job)}"
    if state == "skipped":
        if upstream is not None and upstream.state == "skipped" and upstream.error:
            return upstream.last_error_line  # says already which step failed, and why
        if upstream is not None:
            return f"{upstream.label} {upstream.state}: {upstream.last_error_line}"
        return f"the job is gone: {where} ended before this step"
    if state == "unknown" and job.cluster == "local":
        return f"{where} cannot be checked from here ({socket.gethostname()}); run this on {job.host}"
    if state == "unknown":
        return f"{where} cannot be checked now ({entry.reason}); ask again"
    waits = entry.reason if state == "waiting" else ""
    return ", ".join(filter(None, (broken, waits))) or None


def _history(job: Job, entry: Entry, folder: StepFolder) -> str:
    """What the job has behind it: ``restart 1 (n2 was lost)``."""
    again = f"restart {entry.restarts}" if entry.restarts else ""
    rows = read_lost_nodes(folder, job.id)
    lost = " and ".join(row.node for row in rows if row.restart == rows[-1].restart >= entry.restarts - 1)
    why = f"{lost} was lost" if lost else entry.again
    return f"{again} ({why})" if again and why else again or why


def _how(entry: Entry) -> str:
    return f" as {entry.state}{f' ({entry.reason})' if entry.reason else ''}" if entry.state else ""


def _look_at(job: Job) -> str:
    return job.output or job.submitit_folder


def _progress(folder: StepFolder) -> tuple[dict[str, Any], float | None, str | None]:
    """The last row of its metrics with the newest scores, the seconds of that epoch, and why they cannot be read."""
    try:
        rows = [row for row in read_metrics(folder.metrics_jsonl) if isinstance(row, dict)]
    except (ValueError, OSError) as error:
        return {}, None, str(error)
    times = [row["elapsed_s"] for row in rows[-2:] if isinstance(row.get("elapsed_s"), (int, float))]
    took = times[-1] - (times[-2] if len(times) > 1 and times[-2] < times[-1] else 0.0) if times else None
    scored = next((row for row in reversed(rows) if "miou_pct" in row), {})  # not each epoch is validated
    return ({**scored, **rows[-1]} if rows else {}), took, None


def _read_values(path: Path) -> dict[str, Any]:
    """The table in a JSON file; empty where it is not there or not whole."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _pipeline_order(step: StepState) -> tuple[int, str]:
    if step.task == "evaluate":
        return (3 if "int8" in step.name else 1), step.name
    return {"tune": -1, "train": 0, "quantize": 2, "report": 4}.get(step.task, 5), step.name


def the_run(path: Path, queue: Queue | None = None) -> RunState:
    """The state of one run that a job was submitted for.

    Raises:
        ConfigError: where the folder is none, or its run.json is missing or broken.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: is no folder; give the run folder that jobs.submit printed")
    state = read_run(path, queue=queue)
    if state.spec is None:
        raise ConfigError(state.note)
    return state
