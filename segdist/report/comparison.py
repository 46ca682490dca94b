"""The report's comparisons of nets and precisions: what is drawn, from which steps, and the sentence beside it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from segdist.report import figures
from segdist.report.runs import Problem, Run, Step, as_table
from segdist.report.text import commands, digits, percent, size
from segdist.run.folder import PRECISIONS
from segdist.run.result import as_number


@dataclass(frozen=True)
class Figure:
    """A drawing, its heading, and the commands that made what it shows."""

    title: str
    drawing: Markup
    made_by: list[str]
    run: Run | None = None


def _points(runs: Sequence[Run]) -> list[tuple[Run, str, Step, dict[str, Any]]]:
    """(net, precision, step, its metrics) of every precision of every net, at the net's own size."""
    return [
        (run, precision, step, step.at(run.size))
        for run in runs
        for precision in PRECISIONS
        if (step := run.evaluation(precision)) and step.at(run.size)
    ]


def best_latency(step: Step, size: str | None) -> tuple[float | None, float | None]:
    """p50 of the faster one of the eager and the traced net in ms, and that of the eager one where it is not that."""
    measured = step.measured(size or "")
    return measured.best, measured.eager if measured.eager != measured.best else None


def scatter(runs: Sequence[Run]) -> Figure | None:
    """mIoU against latency, all nets and precisions; None with fewer than two points."""
    marks, steps, said = [], [], []
    for run, precision, step, values in _points(runs):
        (latency, eager), miou = best_latency(step, run.size), as_number(values.get("miou_pct"))
        if latency and miou is not None:
            marks.append(figures.Mark(run.net, precision, latency, miou, eager))
            steps.append((run, step))
            beside = f" (eager {digits(eager)})" if eager else ""
            said.append(f"{run.label} {precision}: {percent(miou)} in {digits(latency)} ms{beside}")
    if len(marks) < 2:
        return None
    alt = f"mIoU against latency. {'; '.join(said)}."
    return Figure("mIoU against latency", Markup(figures.scatter(marks, alt)), commands(*steps))


LATENCY = "latency p50, ms"
_Read = Callable[[Step, dict[str, Any]], Any]
_PANELS: tuple[tuple[str, int, bool, _Read], ...] = (
    ("mIoU, %", 1, True, lambda step, values: values.get("miou_pct")),
    ("pixel accuracy, %", 1, True, lambda step, values: values.get("pixel_accuracy_pct")),
    (LATENCY, 1, True, lambda step, values: None),
    ("model file, MB", 1, True, lambda step, values: step.metrics.get("size_mb")),
    ("parameters, M", 2, False, lambda step, values: step.metrics.get("parameters_m")),
    ("compute, GMAC", 2, False, lambda step, values: values.get("gmacs")),
)
"""Heading, decimals, whether it depends on the precision, and where the value is but for :data:`LATENCY`."""


def panels(runs: Sequence[Run]) -> list[Figure]:
    """One chart of bars for each quantity that papers compare nets by."""
    found = []
    for title, decimals, by_precision, read in _PANELS:
        marks: list[figures.Mark] = []
        steps, said = [], []
        for run, precision, step, values in _points(runs):
            latency, eager = best_latency(step, run.size) if title == LATENCY else (None, None)
            value = latency if title == LATENCY else as_number(read(step, values))
            known = any(mark.net == run.net for mark in marks)
            if value is not None and value >= 0 and (by_precision or not known):
                marks.append(figures.Mark(run.net, precision if by_precision else "fp32", value, eager=eager))
                steps.append((run, step))
                beside = f" (eager {eager:.{decimals}f})" if eager else ""
                said.append(f"{run.label}{' ' + precision if by_precision else ''} {value:.{decimals}f}{beside}")
        if marks:
            drawing = figures.bars(marks, decimals, f"{title}: {'; '.join(said)}.", by_precision)
            found.append(Figure(title, Markup(drawing), commands(*steps)))
    return found


def matrices(runs: Sequence[Run]) -> list[Figure]:
    """The confusion matrix of each net at its own size: of fp32, or else of the first precision there is."""
    found = []
    for run in runs:
        step = run.evaluation("fp32") or next(iter(run.evaluations), None)
        counts = _counts(run, step) if step else None
        if step is None or counts is None:
            continue
        shares = counts / counts.sum(1, keepdims=True).clip(1)
        np.fill_diagonal(shares, 0)
        worst = [divmod(int(cell), len(run.classes)) for cell in np.argsort(-shares, axis=None)[:3]]
        said = "; ".join(
            f"{percent(100 * shares[row, column])} of {run.classes[row]} is taken for {run.classes[column]}"
            for row, column in worst
            if shares[row, column] > 0
        )
        alt = f"Confusion matrix of {run.label} {step.precision}, percent of each true class. {said or 'No errors'}."
        title = f"{run.label} {step.precision}, {size(run.size)}"
        drawing = figures.heat_map(counts, run.classes, run.net, alt)
        found.append(Figure(title, Markup(drawing), commands((run, step)), run))
    return found


def _counts(run: Run, step: Step) -> NDArray[np.int64] | None:
    """The confusion matrix of a step at the net's size, int64 ``[classes, classes]``.

    None where it was not written; where it cannot be used, a problem on the run's list too.
    """
    path = step.folder.confusion_npy
    if not path.is_file():
        return None
    number = list(as_table(step.metrics.get("sizes"))).index(str(run.size)) if step.at(run.size) else 0
    try:
        counts = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)[number]
        if counts.shape != (len(run.classes),) * 2 or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise ValueError(f"holds {counts.dtype} {counts.shape}")
    except (OSError, ValueError, IndexError, EOFError) as error:
        reason = f"{path}: is no confusion matrix of {len(run.classes)} classes ({error}); copy the run folder again"
        run.problems.append(Problem(step.title, "missing", reason))
        return None
    found: NDArray[np.int64] = counts.astype(np.int64)
    return found
