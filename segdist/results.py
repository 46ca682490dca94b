"""The run folder: where things are, what ``result.json`` holds, and writes that are atomic and durable.

::

    runs/RUN/
      run.json                      what was asked for, and from which commit and versions
      train/  config.json  metrics.jsonl  steps.jsonl  checkpoints/{last,step-…,best}.pt  model.pt  logs/  result.json
      evaluate/NAME/  config.json  confusion.npy  images.csv  overlays/*.png  export/SIZE/*.png  logs/  result.json
      quantize/  config.json  model_int8.torchscript  logs/  result.json
      report.html

A reader never sees half a file: every file is written beside its place, flushed to disk and moved there.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segdist.config import EvaluateConfig, TaskConfig, task_of

SCHEMA_VERSION = 1
PRECISIONS = ("fp32", "bf16", "int8")
"""What a model is evaluated in. An evaluation is named by it, or ``fp32-512x1024`` where each size is a step."""
STATUSES = ("completed", "failed", "skipped")
Status = Literal["completed", "failed", "skipped"]
_JOB_VARIABLES = {"cluster": "SEGDIST_JOB_CLUSTER", "id": "SEGDIST_JOB_ID", "restart": "SEGDIST_RESTART"}


class ResultError(ValueError):
    """A result file that is missing, half-copied or of another schema. The message names the file and why."""


@dataclass(frozen=True)
class Result:
    """What one step left behind: ``result.json``.

    ``metrics`` has the unit in each name (``miou_pct``, ``latency_ms_p50``, ``size_mb``). ``machine`` describes the
    hosts, CPU, instruction set and threads; ``decisions`` says what every ``auto`` became and why.
    """

    task: str
    name: str
    status: Status
    started_at: str
    ended_at: str | None = None
    elapsed_s: float | None = None
    error: str | None = None
    log: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    decisions: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ResultError(f"status {self.status!r}: must be one of {', '.join(STATUSES)}")


class StepFolder:
    """The files of one step of a run: ``train``, ``evaluate/NAME`` or ``quantize``."""

    def __init__(self, path: Path, task: str, name: str) -> None:
        self.path = path
        self.task = task
        self.name = name
        self.config_json = path / "config.json"
        self.result_json = path / "result.json"
        self.metrics_jsonl = path / "metrics.jsonl"
        self.steps_jsonl = path / "steps.jsonl"
        self.progress_json = path / "progress.json"
        self.checkpoints = path / "checkpoints"
        self.logs = path / "logs"
        self.overlays = path / "overlays"
        self.confusion_npy = path / "confusion.npy"

    def rank_log(self, rank: int) -> Path:
        """Where the output of one rank goes."""
        return self.logs / f"rank{rank}.log"

    def write_result(self, result: Result) -> None:
        """Write ``result.json`` in one move."""
        write_json(self.result_json, dataclasses.asdict(result))

    def read_result(self) -> Result:
        """Read ``result.json``.

        Raises:
            ResultError: where it is missing, not whole or of another schema.
        """
        return read_result(self.result_json)


class RunFolder:
    """One run on shared storage."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.run_json = self.path / "run.json"
        self.report_html = self.path / "report.html"
        self.model_pt = self.path / "train" / "model.pt"
        self.model_int8 = self.path / "quantize" / "model_int8.torchscript"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    def step(self, task: str, name: str | None = None) -> StepFolder:
        """The folder of one step; ``name`` is the evaluation's name and for evaluations only."""
        if task == "evaluate":
            return StepFolder(self.path / task / (name or "fp32"), task, name or "fp32")
        return StepFolder(self.path / task, task, task)

    def step_of(self, config: TaskConfig) -> StepFolder:
        """The folder of the step that a config describes."""
        return self.step(task_of(config), config.name if isinstance(config, EvaluateConfig) else None)

    def steps(self) -> Iterator[StepFolder]:
        """The steps that have a folder, in the order of a pipeline."""
        if (self.path / "train").is_dir():
            yield self.step("train")
        evaluations = self.path / "evaluate"
        names = sorted(p.name for p in evaluations.iterdir() if p.is_dir()) if evaluations.is_dir() else []
        for name in names:
            if "int8" not in name:
                yield self.step("evaluate", name)
        if (self.path / "quantize").is_dir():
            yield self.step("quantize")
        for name in names:
            if "int8" in name:
                yield self.step("evaluate", name)


def precision_of(name: str) -> str | None:
    """The precision that an evaluation's name begins with: ``int8`` of ``int8`` and ``int8-512x1024``; else None."""
    head = name.partition("-")[0]
    return head if head in PRECISIONS else None


def size_of(name: str) -> str | None:
    """The input size that an evaluation's name ends with: ``512x1024`` of ``fp32-512x1024``; else None."""
    match = re.fullmatch(rf"(?:{'|'.join(PRECISIONS)})-(\d+x\d+)", name)
    return match[1] if match else None


def pixels_of(size: str | None) -> int:
    """Pixels of an input size, to sort by: 524288 of ``512x1024``; 0 for what is no size."""
    match = re.fullmatch(r"(\d+)x(\d+)", size or "", re.ASCII)
    return int(match[1]) * int(match[2]) if match else 0


def is_run_folder(path: Path) -> bool:
    """Whether a folder holds a run of this suite: a run.json, or a step with its config or result."""
    run = RunFolder(path)
    return run.run_json.is_file() or any(
        step.result_json.is_file() or step.config_json.is_file() for step in run.steps()
    )


def read_result(path: Path) -> Result:
    """Read one ``result.json``; raises :class:`ResultError` naming the file and what is wrong with it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultError(f"{path}: is missing; the step has not ended, or the copy is not whole") from error
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: cannot be read as JSON ({error}); copy the run folder again") from error
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        found = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
        raise ResultError(
            f"{path}: has schema {found!r}, this version reads {SCHEMA_VERSION}; use the version that wrote it"
        )
    known = {f.name for f in dataclasses.fields(Result)}
    try:
        return Result(**{key: value for key, value in values.items() if key in known})
    except TypeError as error:
        raise ResultError(f"{path}: lacks a field ({error}); copy the run folder again") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; an unfinished last line, as a killed job leaves it, is left out.

    Raises:
        ResultError: for a broken line before the last.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise ResultError(f"{path}:{number}: is not JSON ({error})") from error
    return rows


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that after a crash either the old or the new file is there, whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable (fsync of the folder)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN and infinity are refused, as other readers cannot take them."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def append_json_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one row to a ``.jsonl`` file and flush it to disk."""
    append_json_lines(path, [values])


def append_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a ``.jsonl`` file and flush them to disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def job_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The ``job`` of a result: cluster, job id and number of restarts, as far as the job's runner exported them."""
    return {key: environ[name] for key, name in _JOB_VARIABLES.items() if name in environ}


def job_environment(job: Mapping[str, str]) -> dict[str, str]:
    """What the processes of a step are told about their job: the opposite of :func:`job_of`."""
    return {_JOB_VARIABLES[key]: value for key, value in job.items()}


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second: ``2026-01-31T12:00:00Z``."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
