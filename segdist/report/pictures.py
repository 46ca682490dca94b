"""The report's charts and overlays, drawn from the runs by :mod:`segdist.report.charts`, and their legends."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from segdist.report import charts, embed
from segdist.report.runs import EXPECTED, Problem, Run, Step, as_rows, as_table
from segdist.report.text import digits, percent, seconds
from segdist.run.result import as_number


def _curve(run: Run, key: str, dashed: bool = False) -> charts.Line:
    rows = [(row, as_number(row.get("epoch"))) for row in run.epochs]
    numbered = [(row, float(i) if epoch is None else epoch) for i, (row, epoch) in enumerate(rows)]
    # An epoch that was not validated has no value, and the line goes past it.
    shown = [(row, epoch) for row, epoch in numbered if key in row] or numbered
    return charts.Line(run.net, [epoch for _, epoch in shown], [as_number(row.get(key)) for row, _ in shown], dashed)


def curves(runs: Sequence[Run]) -> dict[str, Markup]:
    """Loss and mIoU by epoch, all nets in one chart each; empty without epochs."""
    shown = [run for run in runs if run.epochs]
    if not shown:
        return {}
    loss, miou = [_curve(run, "val_loss") for run in shown], [_curve(run, "miou_pct") for run in shown]

    def ends(lines: Sequence[charts.Line]) -> str:
        return "; ".join(f"{run.label} ends at {digits(line.values[-1])}" for run, line in zip(shown, lines))

    training = [_curve(run, "train_loss", dashed=True) for run in shown]
    loss_chart = charts.line_chart([*training, *loss], "loss", f"Loss by epoch; validation: {ends(loss)}.")
    miou_chart = charts.line_chart(miou, "mIoU, %", f"mIoU in % by epoch: {ends(miou)}.", top=100)
    return {"loss": Markup(loss_chart), "miou": Markup(miou_chart)}


@dataclass(frozen=True)
class _Column:
    """The IoU by class (percent) of one net at one precision."""

    run: Run
    precision: str
    ious: dict[str, Any]

    def bar(self, names: Sequence[str]) -> charts.Bar:
        return charts.Bar(self.run.net, [as_number(self.ious.get(n)) for n in names], self.precision == "int8")


def class_ious(runs: Sequence[Run]) -> dict[str, Any]:
    """Per-class IoU at each net's largest size: the numbers, and bars in two columns of classes."""
    columns = []
    for run in runs:
        for precision in EXPECTED:
            step = run.evaluation(precision)
            if step and (ious := as_table(step.at(run.size).get("iou_pct"))):
                columns.append(_Column(run, precision, ious))
    known = [name for run in runs for name in run.classes] + [name for c in columns for name in c.ious]
    names = [name for name in dict.fromkeys(known) if any(name in c.ious for c in columns)]
    own = {name: color for legend in legends(runs) for name, color in legend["chips"] if color.startswith("#")}
    half = math.ceil(len(names) / 2)
    pictures = []
    for part in filter(None, (names[:half], names[half:])):
        alt = f"IoU by class for {', '.join(part)}; the numbers are in the table below."
        swatches = [own.get(name) for name in part]
        pictures.append(Markup(charts.bar_chart(part, [column.bar(part) for column in columns], alt, swatches)))
    rows = [(name, [as_number(column.ious.get(name)) for column in columns]) for name in names]
    return {"columns": columns, "rows": rows, "pictures": pictures}


def trials(run: Run) -> Markup | None:
    """The chart of the tuning trials; None where none has a score."""
    step = run.first("quantize")
    metrics = step.metrics if step else {}
    scored = []
    for trial in as_rows(metrics.get("trials")):
        miou, took = as_number(trial.get("miou_pct")), as_number(trial.get("seconds"))
        name = f"trial {trial.get('trial')}" + ("" if took is None else f", {seconds(took)}")
        if miou is not None:
            scored.append((name, miou))
    if not scored:
        return None
    goal, baseline = as_number(metrics.get("goal_miou_pct")), as_number(metrics.get("baseline_miou_pct"))
    scores = "; ".join(f"{name}: {percent(miou)}" for name, miou in scored)
    alt = f"mIoU of each trial of {run.label} against the goal of {percent(goal)}. {scores}."
    return Markup(charts.trials_chart(run.net, scored, baseline, goal, alt))


ROLES = ("worst", "median", "best")


@dataclass
class Scene:
    """One image of the overlays: its files, the predictions by net and precision, and why it is shown."""

    run: Run
    stem: str
    image: Path
    truth: Path
    predictions: dict[tuple[int, str], Path] = field(default_factory=dict)
    reasons: list[tuple[int, int, Run, str]] = field(default_factory=list)
    """(place among those of the role, place of the role, net, its sentence) of each net that chose it."""

    @property
    def title(self) -> str:
        """Why it is shown; its name where no net says so."""
        return "; ".join(text for *_, text in self.reasons) or self.stem

    @property
    def place(self) -> tuple[float, float]:
        """(place among those of its role, place of the role) with the first net that chose it; last without one."""
        return next(((place, role) for place, role, *_ in self.reasons), (math.inf, math.inf))

    def pair(self) -> list[tuple[str, str | None]]:
        """Picture and truth as (caption, data URI)."""
        return [("image", _uri(self.run, self.image)), ("truth", _uri(self.run, self.truth))]

    def rows(self, runs: Sequence[Run]) -> list[tuple[Run, list[tuple[str, str | None]]]]:
        """For each net that saw it: (net, [(caption, data URI)]) of its predictions, each beside its errors."""
        rows = []
        for run in runs:
            if not any(net == run.net for net, _ in self.predictions):
                continue
            pictures = []
            for precision in (p for p in EXPECTED if run.evaluation(p)):
                path = self.predictions.get((run.net, precision))
                pictures.append((precision, _uri(run, path)))
                error = path and path.with_name(path.name.replace("_prediction.png", "_error.png"))
                if error and error.is_file():
                    pictures.append((f"{precision} errors", _uri(run, error)))
            rows.append((run, pictures))
        return rows


def scenes(runs: Sequence[Run]) -> list[Scene]:
    """The overlays by image: one scene for all nets that saw the same picture and the same truth.

    First each net's worst, median and best one, then the next of each; what no net names comes last.
    """
    found: dict[tuple[str, str, str], Scene] = {}
    for run in runs:
        for precision in EXPECTED:
            step = run.evaluation(precision)
            for image in sorted(step.folder.overlays.glob("*_image.png")) if step else []:
                stem = image.name.removesuffix("_image.png")
                truth = image.with_name(f"{stem}_truth.png")
                key = (stem, _digest(image), _digest(truth))
                scene = found.setdefault(key, Scene(run, stem, image, truth))
                scene.predictions[run.net, precision] = image.with_name(f"{stem}_prediction.png")
                if step and not any(net is run for _, _, net, _ in scene.reasons):
                    scene.reasons += _reason(run, step, stem)
    return sorted(found.values(), key=lambda scene: scene.place)


def _reason(run: Run, step: Step, stem: str) -> list[tuple[int, int, Run, str]]:
    """Why an evaluation shows an image, as its metrics say; nothing where they do not."""
    shown = [one for one in as_rows(step.metrics.get("shown")) if one.get("role") in ROLES]
    for one in shown:
        if one.get("stem") == stem:
            same = [other.get("stem") for other in shown if other["role"] == one["role"]]
            place, role = same.index(stem), ROLES.index(one["role"])
            ordinal = ("", "second ", "third ")[place] if place < 3 else f"{place + 1}th "
            text = f"{ordinal}{one['role']} of {run.label}: {percent(one.get('miou_pct'))} mIoU"
            return [(place, role, run, text)]
    return []


def _uri(run: Run, path: Path | None) -> str | None:
    """A picture of the run; None, and a problem on its list, where it is not whole."""
    if path is None:
        return None
    try:
        return embed.data_uri(path)
    except embed.PictureError as error:
        run.problems.append(Problem("overlays", "missing", str(error)))
        return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def legends(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The label sets in use, each with its classes' names and colours."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        colors = run.metric("colors")
        if not run.classes or not isinstance(colors, list) or len(colors) != len(run.classes):
            continue
        chips = [(name, _css_color(color)) for name, color in zip(run.classes, colors)]
        name = str(run.metric("labels") or "labels")
        found.setdefault(repr((name, chips)), {"labels": name, "chips": chips})
    return list(found.values())


def _css_color(color: Any) -> str:
    channels = color if isinstance(color, list) else []
    valid = len(channels) == 3 and all(isinstance(c, int) and 0 <= c < 256 for c in channels)
    return "#" + "".join(f"{c:02x}" for c in channels) if valid else "transparent"
