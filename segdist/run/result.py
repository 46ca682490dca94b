"""What one step leaves behind: ``result.json`` and the rows of ``metrics.jsonl``; and the job that it names."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segdist import __version__
from segdist.run.files import explain, read_text

SCHEMA_VERSION = 1
STATUSES = ("completed", "failed", "skipped")
Status = Literal["completed", "failed", "skipped"]
_JOB_VARIABLES = {"cluster": "SEGDIST_JOB_CLUSTER", "id": "SEGDIST_JOB_ID", "restart": "SEGDIST_RESTART"}


class ResultError(ValueError):
    """A result file that is missing, half-copied or of another schema. The message names the file and why."""


class UnreadableResult(ResultError):
    """A result file that the storage does not give: ``reason`` is the error, and says nothing about the result."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(f"{explain(reason)}; mend the storage, or let the owner of the file allow it")
        self.reason = reason


@dataclass(frozen=True)
class Result:
    """What one step left behind: ``result.json``.

    ``metrics`` has the unit in each name (``miou_pct``, ``latency_ms_p50``, ``size_mb``). ``machine`` describes the
    hosts, CPU, instruction set and threads; ``decisions`` says what every ``auto`` became and why. ``not_finite`` says
    of each number that JSON cannot hold, and that is null in the file, where it stood and what it was.
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
    not_finite: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ResultError(f"status {self.status!r}: must be one of {', '.join(STATUSES)}")


def to_json_values(result: Result) -> dict[str, Any]:
    """What ``result.json`` holds: a number that is not finite is null there, and stands in ``not_finite``."""
    not_finite = dict(result.not_finite)

    def finite(value: Any, place: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            not_finite[place] = f"was {value}, which JSON cannot hold"
            return None
        if isinstance(value, dict):
            return {key: finite(one, f"{place}.{key}") for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [finite(one, f"{place}.{index}") for index, one in enumerate(value)]
        return value

    values = {name: finite(value, name) for name, value in dataclasses.asdict(result).items()}
    return {**values, "not_finite": not_finite}


def foreign_schema(path: Path, values: Any, read: str) -> str:
    """What to say of a file of another release: its schema, which release wrote it where it says so, and what to do."""
    found = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
    versions = values.get("versions") if isinstance(values, dict) else None
    by = f" by segdist {versions['segdist']}" if isinstance(versions, dict) and "segdist" in versions else ""
    return (
        f"{path}: was written{by} with schema {found!r}, and segdist {__version__} reads {read}; it is left alone: use "
        "the version that wrote it (.github/CHANGELOG.md says which version reads what)"
    )


def read_result(path: Path) -> Result:
    """Read one ``result.json``.

    Raises:
        ResultError: naming the file and what is wrong with it.
    """
    try:
        values = json.loads(read_text(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ResultError(f"{path}: is missing; the step has not ended, or the copy is not whole") from error
    except OSError as error:
        raise UnreadableResult(error) from error
    except ValueError as error:
        raise ResultError(f"{path}: cannot be read as JSON ({error}); copy the run folder again") from error
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
        raise ResultError(foreign_schema(path, values, f"{SCHEMA_VERSION}"))
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
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise ResultError(f"{path}:{number}: is not JSON ({error})") from error
    return rows


def as_number(value: object) -> float | None:
    """A number that a file holds, as it is there; None for anything else.

    Neither true and false nor NaN, infinity and what no float can hold are numbers.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= sys.float_info.max else None


def job_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The ``job`` of a result: cluster, job id and number of restarts, as far as the job's runner exported them."""
    return {key: environ[name] for key, name in _JOB_VARIABLES.items() if name in environ}


def job_environment(job: Mapping[str, str]) -> dict[str, str]:
    """What the processes of a step are told about their job: the opposite of :func:`job_of`."""
    return {_JOB_VARIABLES[key]: value for key, value in job.items()}


def utc_now() -> str:
    """The time as ISO 8601 in UTC, to the second: ``2026-01-31T12:00:00Z``."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
