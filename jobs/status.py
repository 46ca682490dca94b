"""``python -m jobs.status [RUN…]``: one line a step: its state, nodes, epoch, loss, score, time, and why it waits."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.render.table import duration, format_table, number
from jobs.state.find import find_runs
from jobs.state.model import RunState, StepState
from jobs.state.read import read_runs
from segdist.cli import path_argument, run_command
from segdist.run.result import as_number

_HEAD = ("run", "step", "state", "nodes", "epoch", "loss", "val loss", "mIoU %", "elapsed", "ETA", "")

_LEFT = (0, 1, 2, 3, 10)
_IF_ANY = ("nodes", "loss", "ETA")
"""Columns that are left out where they are empty."""


def step_values(run: RunState, step: StepState) -> dict[str, Any]:
    """One step as plain values; the score is that of the last epoch while training, else the result's."""
    metrics = step.result.metrics if step.result else {}
    epoch = as_number(step.progress.get("epoch"))
    within = as_number(step.within.get("epoch"))
    if within is not None and within > (epoch or 0):
        epoch = round(within, 1)
    return {
        "run": run.folder.name,
        "folder": str(run.folder.path),
        "step": step.step,
        "state": step.state,
        "epoch": epoch,
        "epochs": step.config_group("training").get("epochs"),
        "train_loss": as_number(step.progress.get("train_loss")),
        "val_loss": as_number(step.progress.get("val_loss")),
        "miou_pct": as_number(step.progress.get("miou_pct", metrics.get("miou_pct"))),
        "elapsed_s": step.elapsed_s,
        "eta_s": eta_s(step),
        "error": step.error,
        "job": step.job.id if step.job else None,
        "host": step.job.host if step.job else None,
        "nodes": step.entry.nodes or None,
        "restarts": step.entry.restarts,
        "scheduler_state": step.entry.state or None,
        "reason": step.entry.reason or None,
    }


def eta_s(step: StepState) -> float | None:
    """Seconds until a training that is at work will have ended, by what its last epoch, else its last steps, took."""
    epoch, epochs = as_number(step.progress.get("epoch")), as_number(step.config_group("training").get("epochs"))
    within = as_number(step.within.get("epoch"))
    if step.state != "running" or epochs is None:
        return None
    if step.epoch_s is None or epoch is None:
        return as_number(step.within.get("eta_s"))
    return max(0.0, (epochs - max(epoch, within or 0)) * step.epoch_s)


def status_table(runs: Sequence[RunState]) -> str:
    """The table that is printed; a run's name stands on its first line only."""
    rows: list[tuple[str, ...]] = []
    for run in runs:
        for index, step in enumerate(run.steps):
            values = step_values(run, step)
            epoch = values["epoch"]
            rows.append(
                (
                    run.folder.name if index == 0 else "",
                    step.label,
                    step.state,
                    values["nodes"] or "–",
                    f"{epoch}/{values['epochs'] or '?'}" if epoch is not None else "–",
                    number(values["train_loss"], 3),
                    number(values["val_loss"], 3),
                    number(values["miou_pct"]),
                    duration(step.elapsed_s),
                    duration(values["eta_s"]),
                    step.last_error_line,
                )
            )
        if not run.steps:
            rows.append((run.folder.name, "–", "unknown", *["–"] * 7, run.note))
    shown = [c for c, head in enumerate(_HEAD) if head not in _IF_ANY or any(row[c] != "–" for row in rows)]
    left = [place for place, column in enumerate(shown) if column in _LEFT]
    return format_table([_HEAD[c] for c in shown], [[row[c] for c in shown] for row in rows], left)


def outcome(step: StepState) -> str:
    """One line on how a step ended: ``evaluate int8: skipped: quantize failed: …``."""
    after = f" after {duration(step.elapsed_s)}" if step.elapsed_s else ""
    return f"{step.label}: {step.state}{after}" + (f": {step.last_error_line}" if step.error else "")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m jobs.status", description="The state of runs, from their folders.")
    parser.add_argument(
        "runs",
        nargs="*",
        type=path_argument,
        default=[Path("runs")],
        help="run folders, or folders that hold them (runs)",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="(default: table)")
    args = parser.parse_args(argv)

    def body() -> None:
        runs = read_runs(find_runs(args.runs))
        if args.format == "json":
            print(json.dumps([step_values(run, step) for run in runs for step in run.steps], indent=2))
        else:
            print(status_table(runs))

    return run_command(body, output_is_result=True)


if __name__ == "__main__":
    sys.exit(main())
