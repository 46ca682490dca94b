"""``python -m jobs.collect RUNS…``: the results of many runs: a table, CSV, JSON, HTML report or TensorBoard events."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.render.table import format_table, number, shorten
from jobs.state.find import find_runs
from jobs.state.model import RunState, StepState
from jobs.state.read import read_runs
from segdist.cli import path_argument, run_command
from segdist.config import ConfigError
from segdist.run.files import write_atomic
from segdist.run.folder import PRECISIONS, pixels_of, precision_of, size_of
from segdist.run.result import as_number
from segdist.run.speedup import Measured, goal_note, speed_up

TABLE_WIDTH = 120


@dataclass(frozen=True)
class Row:
    """One model at one input size; empty where it was not measured.

    Latencies are ms per image (batch 1), ``size_mb`` is the model file, ``parameters_m`` in millions,
    ``gmacs`` in 1e9 multiply-adds per image, ``peak_memory_mb`` of the process that was timed.
    ``speedup`` is ``base_ms``, the p50 of the best fp32 (``base``: eager or traced), over the best p50 of this row;
    ``speedup_over_eager`` is that over eager fp32. Without a comparable base they are empty, and ``speedup_missing``
    says why. ``goal_met`` is of an int8 model at this size.
    """

    run: str
    folder: str
    step: str
    status: str
    model: str | None = None
    precision: str | None = None
    size: str | None = None
    miou_pct: float | None = None
    pixel_accuracy_pct: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    traced_latency_ms_p50: float | None = None
    latency_ms_p99: float | None = None
    images_per_s: float | None = None
    category_miou_pct: float | None = None
    loss: float | None = None
    peak_memory_mb: float | None = None
    net_share_pct: float | None = None
    size_mb: float | None = None
    parameters_m: float | None = None
    gmacs: float | None = None
    speedup: float | None = None
    speedup_over_eager: float | None = None
    base: str | None = None
    base_ms: float | None = None
    speedup_missing: str | None = None
    goal_met: bool | None = None
    note: str | None = None
    apart: str | None = None
    error: str | None = None


_OF_A_SIZE = (
    "miou_pct", "pixel_accuracy_pct", "category_miou_pct", "loss", "latency_ms_p50", "latency_ms_p95",
    "traced_latency_ms_p50", "images_per_s", "gmacs", "peak_memory_mb", "net_share_pct",
)  # fmt: skip
"""What an evaluation measures at each size, by the same name as the row has it."""


def rows_of(run: RunState) -> list[Row]:
    """The rows of a run: each evaluation at each size; where there is none, the last other step.

    An evaluation that was not completed has one row, with its status and error.
    """
    evaluations = [step for step in run.steps if step.task == "evaluate"]
    if evaluations:
        fp32 = [one for step in evaluations for one in _measured(step) if one.precision == "fp32"]
        rows = [row for step in evaluations for row in _evaluation_rows(run, step, fp32)]
        return sorted(rows, key=_place)
    steps = [step for step in run.steps if step.task in ("train", "quantize")]
    if steps:
        return [_step_row(run, steps[-1])]
    return [Row(run.folder.name, str(run.folder.path), "–", "unknown", error=run.note or "holds no step")]


def _place(row: Row) -> tuple[int, int]:
    """By precision, then by size, whatever the steps are called; what has neither comes last."""
    precision = PRECISIONS.index(row.precision) if row.precision in PRECISIONS else len(PRECISIONS)
    return precision, pixels_of(row.size) or sys.maxsize


def _measured(step: StepState) -> list[Measured]:
    """What a completed evaluation measured, by size; nothing where its result has another shape."""
    sizes = step.result.metrics.get("sizes") if step.result and step.state == "completed" else None
    if not isinstance(sizes, dict) or not all(isinstance(values, dict) for values in sizes.values()):
        return []
    metrics, machine = (step.result.metrics, step.result.machine) if step.result else ({}, {})
    precision = metrics.get("precision") or precision_of(step.name) or "fp32"
    runs = step.config_group("evaluation").get("latency_runs")
    passes = runs if isinstance(runs, int) else None
    return [Measured(step.name, precision, size, values, machine, passes) for size, values in sizes.items()]


def _evaluation_rows(run: RunState, step: StepState, fp32: Sequence[Measured]) -> list[Row]:
    base = _step_row(run, step)
    measured = _measured(step)
    if not measured:
        error = base.error or ("result.json has no sizes" if step.state == "completed" else None)
        return [dataclasses.replace(base, error=error)]
    rows = []
    for one in measured:
        found: dict[str, Any] = {name: as_number(one.values.get(name)) for name in _OF_A_SIZE}
        found |= {"latency_ms_p99": one.p99, "note": goal_note(one)}
        met = one.values.get("goal_met")
        faster = speed_up(one, fp32)
        found |= {"speedup": faster.factor, "speedup_over_eager": faster.over_eager, "base": faster.base_kind or None}
        found |= {"base_ms": faster.base, "speedup_missing": faster.reason or None, "apart": faster.apart or None}
        rows.append(dataclasses.replace(base, size=one.size, goal_met=met if isinstance(met, bool) else None, **found))
    return rows


def _step_row(run: RunState, step: StepState) -> Row:
    metrics = step.result.metrics if step.result else {}
    by_name = precision_of(step.name) if step.task == "evaluate" else {"quantize": "int8"}.get(step.task)
    return Row(
        run=run.folder.name,
        folder=str(run.folder.path),
        step=step.step,
        status=step.state,
        model=_model(metrics) or _model_of(run),
        precision=metrics.get("precision") or by_name or "fp32",
        size=size_of(step.name),
        miou_pct=_number(metrics, "miou_pct"),
        pixel_accuracy_pct=_number(metrics, "pixel_accuracy_pct"),
        size_mb=_number(metrics, "size_mb"),
        parameters_m=_number(metrics, "parameters_m"),
        error=step.error,
    )


def _model(metrics: dict[str, Any]) -> str | None:
    model, width = metrics.get("model"), metrics.get("width")
    return f"unet-{width}" if model == "unet" and width else model


def _model_of(run: RunState) -> str | None:
    """The model that the run's other steps name, in their results or else in the config of the training."""
    for step in run.steps:
        found = _model(step.result.metrics if step.result else {}) or _model(step.config_group("net"))
        if found:
            return found
    return None


def _number(values: dict[str, Any], key: str) -> float | None:
    return as_number(values.get(key))


_HEAD = (
    "run", "model", "prec.", "input", "mIoU\n%", "PA\n%", "p50\nms", "p95\nms", "traced\nms",
    "base\nms", "file\nMB", "param.\nM", "GMACs", "speed\n-up", "status",
)  # fmt: skip

_LEGEND = (
    "p50, p95: latency per image at batch 1, eager but for int8; traced: p50 of the traced, frozen net\n"
    "base: p50 of the best fp32, eager or traced, timed beside it; speed-up: base over the better of p50 and traced"
)


def text_table(rows: Sequence[Row], width: int = TABLE_WIDTH) -> str:
    """The aligned table, with a legend; names of runs are shortened as far as ``width`` asks for it."""
    longest = max(len(row.run) for row in rows)
    while True:
        cells = [_cells(row, longest) for row in rows]
        table = format_table(_HEAD, cells, left=(0, 1, 2, 3, 14))
        if longest <= 8 or max(map(len, table.splitlines())) <= width:
            break
        longest -= 1
    return "\n".join((f"{table}\n\n{_LEGEND}", *_notes(rows)))


def _notes(rows: Sequence[Row]) -> list[str]:
    """A line for each row that is slower than fp32, that claims no speed-up, or that has an accuracy goal."""
    lines = []
    for row in rows:
        said = [row.note] if row.note else []
        own = min((ms for ms in (row.latency_ms_p50, row.traced_latency_ms_p50) if ms), default=None)
        if row.speedup and own and round(row.speedup, 2) < 1:
            said.insert(0, f"{row.speedup:.2f}x: slower than {row.base} ({own:.1f} against {row.base_ms:.1f} ms)")
        elif own and row.speedup is None:
            said.insert(0, f"no speed-up is claimed: {row.speedup_missing}")
        lines += [f"{row.run} {row.precision} {row.size}: {'; '.join(said)}"] if said else []
    return ["", *lines] if lines else []


def _cells(row: Row, name: int) -> tuple[str, ...]:
    return (
        shorten(row.run, name),
        row.model or "–",
        row.precision or "–",
        row.size or "–",
        number(row.miou_pct, 2),
        number(row.pixel_accuracy_pct, 2),
        number(row.latency_ms_p50),
        number(row.latency_ms_p95),
        number(row.traced_latency_ms_p50),
        number(row.base_ms),
        number(row.size_mb),
        number(row.parameters_m),
        number(row.gmacs),
        "–" if row.speedup is None else f"{row.speedup:.2f}×",
        row.status,
    )


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, a head line first; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    return text.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list of objects; what was not measured is null."""
    return json.dumps([dataclasses.asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"


def collect(runs: Sequence[Path], form: str, out: Path | None) -> None:
    """Print or write the results of runs; what is amiss goes to stderr, a line each.

    Raises:
        ConfigError: where there is no run, or no place for the report.
    """
    if form == "html" and out is None:
        raise ConfigError("--format html: needs a file; give --out report.html")
    if form == "tensorboard" and out is None:
        raise ConfigError("--format tensorboard: needs a folder; give --out events")
    folders = find_runs(runs)
    states = read_runs(folders)
    rows = [row for state in states for row in rows_of(state)]
    for row in rows:
        if row.error:
            print(
                f"note: {row.folder}: {row.step} {row.status}: {row.error.strip().splitlines()[-1]}",
                file=sys.stderr,
            )
    if form == "html" and out is not None:
        from segdist.report.page import write_report

        print(f"report: {write_report(folders, out)}")
        return
    if form == "tensorboard" and out is not None:
        from jobs.render.tensorboard import write_events

        for file in write_events(states, out):
            print(f"tensorboard: {file}")
        return
    text = {
        "table": lambda: text_table(rows) + "\n",
        "csv": lambda: as_csv(rows),
        "json": lambda: as_json(rows),
    }[form]()
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomic(out, text.encode(errors="replace"))
        print(f"{form}: {out}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m jobs.collect", description="The results of runs in one table.")
    parser.add_argument("runs", nargs="+", type=path_argument, help="run folders, or folders that hold them")
    forms = ("table", "csv", "json", "html", "tensorboard")
    parser.add_argument("--format", choices=forms, default="table", help="(default: table)")
    parser.add_argument(
        "--out", type=path_argument, metavar="FILE", help="write here instead of printing (tensorboard: a folder)"
    )
    args = parser.parse_args(argv)
    return run_command(lambda: collect(args.runs, args.format, args.out), output_is_result=True)


if __name__ == "__main__":
    sys.exit(main())
