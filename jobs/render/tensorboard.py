"""The curves and results of runs as TensorBoard event files.

::

    DIR/RUN/train/events.out.tfevents.…             loss, mIoU, learning rate, … by step
    DIR/RUN/evaluate/NAME/SIZE/events.out.tfevents.…   the numbers of one evaluation at one size

They are made from ``metrics.jsonl`` and ``result.json``; writing them again replaces those of the same run.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs.state.model import RunState, StepState
from segdist.config import ConfigError
from segdist.run.result import as_number, read_metrics

PATTERN = "events.out.tfevents.*"
Point = tuple[str, float, int, float]
"""A scalar: its tag, value, step, and time in seconds since 1970."""


def write_events(runs: Sequence[RunState], out: Path) -> list[Path]:
    """Write the event files of ``runs`` into ``out``; returns them.

    Raises:
        ConfigError: where tensorboardX is not installed, two runs have one name, or ``out`` is a file.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        install = 'python -m pip install "tensorboardX>=2.6.2,<3"'
        raise ConfigError(f"--format tensorboard: tensorboardX is not installed ({error}); {install}") from error
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; give a folder")
    names = [run.folder.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"RUN {twice}: two runs have this name, and so would their events; collect them one by one")
    written: list[Path] = []
    for run in runs:
        for place, points in _series(run):
            folder = out / run.folder.name / place
            for earlier in folder.glob(PATTERN):
                earlier.unlink()
            with SummaryWriter(str(folder)) as writer:
                for tag, value, step, when in points:
                    writer.add_scalar(tag, value, step, walltime=when)
            written += folder.glob(PATTERN)
    return written


def _series(run: RunState) -> Iterator[tuple[str, list[Point]]]:
    """(folder, points) of everything a run measured; nothing for what is not there."""
    for step in run.steps:
        if step.task == "train":
            points = list(_epochs(step))
            if points:
                yield step.step, points
        elif step.result is not None:
            when = _seconds(step.result.ended_at or step.result.started_at)
            sizes = step.result.metrics.get("sizes")
            parts = sizes if isinstance(sizes, dict) else {"": step.result.metrics}
            for size, values in parts.items():
                found = [(tag, value, 0, when) for tag, value in _scalars(values if isinstance(values, dict) else {})]
                if found:
                    yield f"{step.step}/{size}".rstrip("/"), found


def _epochs(step: StepState) -> Iterator[Point]:
    started = _seconds(step.result.started_at if step.result else step.started_at)
    try:
        rows = read_metrics(step.folder.metrics_jsonl)
    except (OSError, ValueError):
        return  # jobs.collect has said what is wrong with it
    for number, row in enumerate(rows, 1):
        values = row if isinstance(row, dict) else {}
        at = as_number(values.get("step"))
        when = started + (as_number(values.get("elapsed_s")) or 0.0)
        for tag, value in _scalars(values):
            if tag not in ("step", "elapsed_s"):
                yield tag, value, number if at is None else int(at), when


def _scalars(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a table, and of the tables in it as ``iou_pct/road``."""
    for key, value in values.items():
        number = as_number(value)
        if number is not None:
            yield key, number
        elif isinstance(value, dict):
            yield from ((f"{key}/{name}", one) for name, one in _scalars(value))


def _seconds(text: object) -> float:
    """A time of :func:`segdist.run.result.utc_now` in seconds since 1970; 0 for anything else."""
    try:
        moment = datetime.datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()
