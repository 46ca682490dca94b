"""The report: one self-contained HTML page about one run or several side by side.

::

    python -m segdist.report runs/unet runs/hrnet --out report.html

The files in the run folders are the only source. A step that failed, was skipped or is not whole is named at
the top of the page, and what depends on it says so in its place: a report is needed most when something went
wrong.
"""

from __future__ import annotations

import hashlib
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import tyro
from markupsafe import Markup

from segdist import report_charts as charts
from segdist.cli import parse, read_values, run_command
from segdist.config import TASKS, ConfigError, require
from segdist.results import (
    Result,
    ResultError,
    RunFolder,
    StepFolder,
    is_run_folder,
    read_metrics,
    write_atomic,
)

MAX_SCENES = 6
"""Images shown as overlays, at the most; the page says how many there are."""
PRECISIONS = ("fp32", "int8")
NONE = "–"
"""What stands where a number is missing."""


@dataclass(frozen=True)
class ReportConfig:
    """Write one self-contained HTML page about one run or several side by side."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Run folders, each one net of the page."""
    out: str
    """HTML file to write."""


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write the page about the run folders ``runs`` to ``out``; the same folders give the same bytes.

    Returns:
        ``out``.

    Raises:
        ConfigError: for no run, a path that is no run folder, one named twice, or a file that cannot be
            written.
    """
    require(bool(runs), "RUN: no run folder was named; give at least one, for example runs/unet")
    for run in runs:
        require(run.is_dir(), f"RUN {str(run)!r}: is no folder; give a run folder, for example runs/unet")
        require(
            is_run_folder(run),
            f"RUN {str(run)!r}: holds no run.json and no step (train, evaluate, quantize); give a run folder",
        )
    resolved = [run.resolve() for run in runs]
    require(len(set(resolved)) == len(runs), f"RUN {' '.join(map(str, runs))}: name each run folder once")
    require(not out.is_dir(), f"--out {str(out)!r}: is a folder; give the name of a file, for example report.html")
    page = _page(_name_nets([_read_run(RunFolder(run)) for run in runs]))
    try:
        write_atomic(out, page.encode())
    except OSError as error:
        raise ConfigError(f"--out {str(out)!r}: cannot be written ({error.strerror}); give another file") from error
    return out


# --- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Problem:
    """Something that is not as it should be, for the top of the page."""

    step: str
    kind: str
    text: str
    log: str | None = None


@dataclass(frozen=True)
class _Step:
    """A step with a whole ``result.json``, and its config where that is there."""

    folder: StepFolder
    result: Result
    config: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def title(self) -> str:
        return _step_title(self.folder)

    @property
    def precision(self) -> str:
        return str(self.metrics.get("precision"))

    def at(self, size: str | None) -> dict[str, Any]:
        """An evaluation's metrics at one input size; empty where it was not evaluated at that."""
        return _table(_table(self.metrics.get("sizes")).get(size or ""))


@dataclass
class _Run:
    """One run folder: one net of the page."""

    folder: RunFolder
    record: dict[str, Any]
    steps: list[_Step]
    epochs: list[dict[str, Any]]
    problems: list[_Problem]
    net: int = 0
    label: str = ""

    def first(self, task: str) -> _Step | None:
        return next((step for step in self.steps if step.folder.task == task), None)

    @property
    def evaluations(self) -> list[_Step]:
        """Those that measured something: fp32 before int8, and the one with the plain name first of each."""
        found = [s for s in self.steps if s.folder.task == "evaluate" and _table(s.metrics.get("sizes"))]
        return sorted(found, key=lambda s: (s.precision != "fp32", s.precision, s.folder.name != s.precision))

    def evaluation(self, precision: str) -> _Step | None:
        """The evaluation of that precision, which its metrics state; its name says nothing."""
        return next((step for step in self.evaluations if step.precision == precision), None)

    @property
    def sizes(self) -> list[str]:
        """Every input size evaluated, the largest first."""
        names = {str(size) for step in self.evaluations for size in step.metrics["sizes"]}
        return sorted(names, key=lambda size: (-_area(size), size))

    @property
    def size(self) -> str | None:
        """The largest size that all evaluations have; without one, the largest of any."""
        shared = [size for size in self.sizes if all(step.at(size) for step in self.evaluations)]
        return next(iter(shared or self.sizes), None)

    def metric(self, key: str) -> Any:
        """The first value of a metric, in the order of the steps."""
        return next((s.metrics[key] for s in self.steps if s.metrics.get(key) is not None), None)

    @property
    def classes(self) -> list[str]:
        names = self.metric("classes")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def glyph(self) -> str:
        return charts.glyph(self.net)

    @property
    def begun(self) -> str | None:
        begun = [str(step.result.started_at) for step in self.steps]
        return self.record.get("created_at") or min(begun, default=None)

    @property
    def command(self) -> str:
        """The command that made the run, as a shell takes it."""
        words = self.record.get("command")
        return shlex.join(map(str, words)) if isinstance(words, list) else ""


def _read_run(folder: RunFolder) -> _Run:
    problems: list[_Problem] = []
    record: dict[str, Any] = {}
    try:
        record = read_values(str(folder.run_json)) if folder.run_json.exists() else {}
    except ConfigError as error:
        problems.append(_Problem("run.json", "missing", str(error)))
    folders = {(step.task, step.name): step for step in folder.steps()}
    for asked in _rows(record.get("steps")):
        task, name = str(asked.get("task")), str(asked.get("name"))
        if task in TASKS and (task, name) not in folders:
            folders[task, name] = folder.step(task, name)
    steps = []
    for step in folders.values():
        try:
            result = step.read_result()
        except ResultError as error:
            problems.append(_Problem(_step_title(step), "missing", str(error)))
            continue
        if result.status != "completed":
            reason = result.error or "no reason given"
            problems.append(_Problem(_step_title(step), result.status, reason, result.log))
        try:
            config = read_values(str(step.config_json))
        except ConfigError:
            config = {}  # what comes from it is shown as not recorded
        steps.append(_Step(step, result, config, _table(result.metrics)))
    try:
        epochs = _rows(read_metrics(folder.step("train").metrics_jsonl))
    except (OSError, ValueError) as error:
        epochs = []
        problems.append(_Problem("train", "missing", str(error)))
    return _Run(folder, record, steps, epochs, problems)


def _name_nets(runs: list[_Run]) -> list[_Run]:
    """Number and name the runs: by the net, the UNet's width too, and the folder where that is not enough."""
    for number, run in enumerate(runs):
        configs = [_table(step.config.get("net")) for step in run.steps]
        model = run.metric("model") or next((c["model"] for c in configs if c.get("model")), None)
        width = run.metric("width") or next((c["width"] for c in configs if c.get("width")), None)
        run.net = number
        run.label = str(model or run.folder.name) + (f" (width {width})" if model == "unet" and width else "")
    labels = [run.label for run in runs]
    for run, label in zip(runs, labels):
        if labels.count(label) > 1:
            run.label = f"{label} · {run.folder.name}"
    return runs


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    """A finite number, or None for anything else that a file may hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _area(size: str) -> int:
    sides = size.split("x")
    return int(sides[0]) * int(sides[1]) if len(sides) == 2 and all(side.isdecimal() for side in sides) else 0


def _step_title(folder: StepFolder) -> str:
    return f"evaluate {folder.name}" if folder.task == "evaluate" else folder.task


def _difference(left: Any, right: Any) -> float | None:
    a, b = _number(left), _number(right)
    return None if a is None or b is None else a - b


def _ratio(numerator: Any, denominator: Any) -> float | None:
    top, bottom = _number(numerator), _number(denominator)
    return top / bottom if top and bottom else None


# --- numbers as text -----------------------------------------------------------------------------------


def _percent(value: Any) -> str:
    number = _number(value)
    return NONE if number is None else f"{number:.1f}\N{NO-BREAK SPACE}%"


def _digits(value: Any) -> str:
    """Three digits that count, and no more: 1843, 52.3, 5.12, 0.041."""
    number = _number(value)
    if number is None:
        return NONE
    decimals = 2 - math.floor(math.log10(abs(number))) if number else 0
    return f"{number:.{min(max(decimals, 0), 3)}f}"


def _times(value: Any) -> str:
    number = _number(value)
    return NONE if number is None else f"{number:.1f}×" if number >= 0.95 else f"{number:.2f}×"


def _points(value: Any) -> str:
    number = _number(value)
    return NONE if number is None else f"{number:+.1f}".replace("-", "−")


def _drop(value: Any) -> str:
    """A loss of mIoU in points: the sign says which way it went."""
    number = _number(value)
    return NONE if number is None else f"{_points(-number)} points"


def _seconds(value: Any) -> str:
    number = _number(value)
    if number is None:
        return NONE
    minutes, seconds = divmod(round(number), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{number:.0f} s"


def _moment(value: Any) -> str:
    """``2026-01-31T12:00:00Z`` as a person writes it; another form as it is."""
    text = str(value or "")
    is_utc = len(text) == 20 and text[10] == "T" and text.endswith("Z")
    return f"{text[:10]} {text[11:16]} UTC" if is_utc else text


def _size(value: Any) -> str:
    return str(value).replace("x", "×")


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _clean(value: Any) -> str:
    """Text from a log without its control characters (colours, bells)."""
    return "".join(c for c in str(value) if c.isprintable() or c == "\n")


# --- what the page says --------------------------------------------------------------------------------


def _sentence(run: _Run) -> str:
    """The net's result in one sentence."""
    fp32, int8 = run.evaluation("fp32"), run.evaluation("int8")
    where = f" at {_size(run.size)}" if len(run.sizes) > 1 else ""
    before = fp32.at(run.size) if fp32 else {}
    after = int8.at(run.size) if int8 else {}
    if int8 and fp32:
        parts = [f"int8 {_percent(after.get('miou_pct'))} mIoU (fp32 {_percent(before.get('miou_pct'))}){where}"]
        faster = _ratio(before.get("latency_ms_p50"), after.get("latency_ms_p50"))
        smaller = _ratio(fp32.metrics.get("size_mb"), int8.metrics.get("size_mb"))
        parts += [
            f"{_times(max(r, 1 / r))} {more if r >= 1 else less}"
            for r, more, less in ((faster, "faster", "slower"), (smaller, "smaller", "larger"))
            if r
        ]
        text = ", ".join(parts)
    elif int8:
        text = f"int8 {_percent(after.get('miou_pct'))} mIoU{where}; fp32 was not evaluated"
    elif fp32:
        latency = _digits(before.get("latency_ms_p50"))
        text = f"fp32 {_percent(before.get('miou_pct'))} mIoU{where}, {latency} ms an image"
        text += "; int8 was not evaluated"
    elif (train := run.first("train")) and _number(train.metrics.get("miou_pct")) is not None:
        text = f"{_percent(train.metrics['miou_pct'])} mIoU at the end of the training; not evaluated"
    else:
        text = "no result"
    quantize = run.first("quantize")
    met = quantize.metrics.get("goal_met") if quantize else None
    if quantize and isinstance(met, bool):
        text += f"; goal {_goal(quantize)} {'met' if met else 'MISSED'}"
    return text


def _goal(quantize: _Step) -> str:
    options = _table(quantize.config.get("quantization"))
    drop = _number(options.get("accuracy_drop"))
    if drop is None:
        return f"of {_percent(quantize.metrics.get('goal_miou_pct'))} mIoU"
    unit = "\N{NO-BREAK SPACE}% relative" if options.get("relative") else " points"
    return f"{drop * 100:g}{unit}"


def _variant(step: _Step, traced: bool = False) -> str:
    kind = {"fp32": "fp32 traced" if traced else "fp32 eager"}.get(step.precision, step.precision)
    return kind if step.folder.name == step.precision else f"{kind} · {step.folder.name}"


def _measurements(run: _Run, size: str | None) -> list[dict[str, Any]]:
    """The rows of one net at one size: one an evaluation, one for the traced fp32 model (latency only)."""
    fp32 = run.evaluation("fp32")
    eager = fp32.at(size) if fp32 else {}
    rows: list[dict[str, Any]] = []
    for step in run.evaluations:
        values = step.at(size)
        if not values:
            continue
        machine = _table(step.result.machine)
        common = {
            "precision": step.precision,
            "isa": machine.get("isa", NONE),
            "threads": machine.get("threads_per_rank", NONE),
        }
        rows.append({**step.metrics, **values, **common, "variant": _variant(step)})
        rows[-1]["change"] = None if step is fp32 else _difference(values.get("miou_pct"), eager.get("miou_pct"))
        if _number(values.get("traced_latency_ms_p50")) is not None:
            traced = {key.removeprefix("traced_"): values[key] for key in values if key.startswith("traced_")}
            rows.append({**traced, **common, "variant": _variant(step, traced=True)})
    for row in rows:
        row["speedup"] = _ratio(eager.get("latency_ms_p50"), row.get("latency_ms_p50"))
    return rows


def _groups(runs: Sequence[_Run]) -> Iterator[tuple[_Run, str | None, list[dict[str, Any]], list[str]]]:
    """(net, input size, its rows, the precisions without one): the blocks of the tables."""
    for run in runs:
        sizes: list[str | None] = [*run.sizes] or [None]
        for size in sizes:
            rows = _measurements(run, size)
            found = {row["precision"] for row in rows}
            yield run, size, rows, [precision for precision in PRECISIONS if precision not in found]


def _grouped(runs: Sequence[_Run], pick: Callable[[_Step], Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """(key, value, where) of what each step states, equal statements taken together."""
    found: dict[tuple[str, str], list[tuple[_Run, _Step]]] = {}
    for run in runs:
        for step in run.steps:
            for key, value in _table(pick(step)).items():
                found.setdefault((str(key), _flat(value)), []).append((run, step))
    everywhere = sum(len(run.steps) for run in runs)
    order = list(dict.fromkeys(key for key, _ in found))
    rows = []
    for (key, value), places in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        by_net = {run.net: ", ".join(s.title for r, s in places if r is run) for run, _ in places}
        if len(places) == everywhere:
            where = "every step"
        elif len(set(by_net.values())) == 1 and len(by_net) == len(runs):
            where = next(iter(by_net.values()))
        else:
            where = "; ".join(f"{runs[net].label}: {titles}" for net, titles in by_net.items())
        rows.append((key.replace("_", " "), value, where))
    return rows


def _latency_notes(runs: Sequence[_Run]) -> list[str]:
    """How the latencies were measured, in the words of the configs; one sentence where all agree."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for step in run.evaluations:
            options = _table(step.config.get("evaluation"))
            timed, warmup = options.get("latency_runs"), options.get("latency_warmup")
            count = f"{timed or 'An unrecorded number of'} timed runs"
            count += f" after {warmup} to warm up" if timed else ""
            machine = _table(step.result.machine)
            threads = machine.get("threads_per_rank", "unrecorded")
            isa = machine.get("isa", "unrecorded instruction set")
            how = f"{count}, {threads} thread{'' if threads == 1 else 's'}, {isa}"
            found.setdefault(how, []).append(f"{run.label} {step.title.removeprefix('evaluate ')}")
    return [how if len(found) == 1 else f"{', '.join(who)}: {how}" for how, who in found.items()]


# --- its pictures --------------------------------------------------------------------------------------


def _curve(run: _Run, key: str, dashed: bool = False) -> charts.Line:
    epochs = [_number(row.get("epoch")) for row in run.epochs]
    counted = [float(i) if epoch is None else epoch for i, epoch in enumerate(epochs)]
    return charts.Line(run.net, counted, [_number(row.get(key)) for row in run.epochs], dashed)


def _curves(runs: Sequence[_Run]) -> dict[str, Markup]:
    shown = [run for run in runs if run.epochs]
    if not shown:
        return {}
    loss, miou = [_curve(run, "val_loss") for run in shown], [_curve(run, "miou_pct") for run in shown]

    def ends(lines: Sequence[charts.Line]) -> str:
        return "; ".join(f"{run.label} ends at {_digits(line.values[-1])}" for run, line in zip(shown, lines))

    training = [_curve(run, "train_loss", dashed=True) for run in shown]
    loss_chart = charts.line_chart([*training, *loss], "loss", f"Loss by epoch; validation: {ends(loss)}.")
    miou_chart = charts.line_chart(miou, "mIoU, %", f"mIoU in % by epoch: {ends(miou)}.", top=100)
    return {"loss": Markup(loss_chart), "miou": Markup(miou_chart)}


@dataclass(frozen=True)
class _Column:
    """The IoU by class (percent) of one net at one precision."""

    run: _Run
    precision: str
    ious: dict[str, Any]

    def bar(self, names: Sequence[str]) -> charts.Bar:
        return charts.Bar(self.run.net, [_number(self.ious.get(n)) for n in names], self.precision == "int8")


def _class_ious(runs: Sequence[_Run]) -> dict[str, Any]:
    """Per-class IoU at each net's largest size: the numbers, and bars in two columns of classes."""
    columns = []
    for run in runs:
        for precision in PRECISIONS:
            step = run.evaluation(precision)
            if step and (ious := _table(step.at(run.size).get("iou_pct"))):
                columns.append(_Column(run, precision, ious))
    known = [name for run in runs for name in run.classes] + [name for c in columns for name in c.ious]
    names = [name for name in dict.fromkeys(known) if any(name in c.ious for c in columns)]
    half = math.ceil(len(names) / 2)
    pictures = []
    for part in filter(None, (names[:half], names[half:])):
        alt = f"IoU by class for {', '.join(part)}; the numbers are in the table below."
        pictures.append(Markup(charts.bar_chart(part, [column.bar(part) for column in columns], alt)))
    rows = [(name, [_number(column.ious.get(name)) for column in columns]) for name in names]
    return {"columns": columns, "rows": rows, "pictures": pictures}


def _trials(run: _Run) -> Markup | None:
    """The chart of the tuning trials; None where none has a score."""
    step = run.first("quantize")
    metrics = step.metrics if step else {}
    scored = []
    for trial in _rows(metrics.get("trials")):
        miou, took = _number(trial.get("miou_pct")), _number(trial.get("seconds"))
        name = f"trial {trial.get('trial')}" + ("" if took is None else f", {_seconds(took)}")
        if miou is not None:
            scored.append((name, miou))
    if not scored:
        return None
    goal, baseline = _number(metrics.get("goal_miou_pct")), _number(metrics.get("baseline_miou_pct"))
    scores = "; ".join(f"{name}: {_percent(miou)}" for name, miou in scored)
    alt = f"mIoU of each trial of {run.label} against the goal of {_percent(goal)}. {scores}."
    return Markup(charts.trials_chart(run.net, scored, baseline, goal, alt))


@dataclass
class _Scene:
    """One image of the overlays: its files, and the predictions by net and precision."""

    run: _Run
    stem: str
    image: Path
    truth: Path
    predictions: dict[tuple[int, str], Path] = field(default_factory=dict)

    def stacks(self, runs: Sequence[_Run]) -> list[tuple[_Run | None, list[tuple[str, str | None]]]]:
        """Picture over truth, then fp32 over int8 of each net that saw them: (net, [(caption, data URI)])."""
        own = [("image", _uri(self.run, self.image)), ("truth", _uri(self.run, self.truth))]
        nets = [run for run in runs if any(net == run.net for net, _ in self.predictions)]
        return [(None, own)] + [
            (
                run,
                [(p, _uri(run, self.predictions.get((run.net, p)))) for p in PRECISIONS if run.evaluation(p)],
            )
            for run in nets
        ]


def _scenes(runs: Sequence[_Run]) -> list[_Scene]:
    """The overlays by image: one scene for all nets that saw the same picture and the same truth."""
    scenes: dict[tuple[str, str, str], _Scene] = {}
    for run in runs:
        for precision in PRECISIONS:
            step = run.evaluation(precision)
            for image in sorted(step.folder.overlays.glob("*_image.png")) if step else []:
                stem = image.name.removesuffix("_image.png")
                truth = image.with_name(f"{stem}_truth.png")
                key = (stem, _digest(image), _digest(truth))
                scene = scenes.setdefault(key, _Scene(run, stem, image, truth))
                scene.predictions[run.net, precision] = image.with_name(f"{stem}_prediction.png")
    return list(scenes.values())


def _uri(run: _Run, path: Path | None) -> str | None:
    """A picture of the run; None, and a problem on its list, where it is not whole."""
    if path is None:
        return None
    try:
        return charts.picture(path)
    except charts.PictureError as error:
        run.problems.append(_Problem("overlays", "missing", str(error)))
        return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _legends(runs: Sequence[_Run]) -> list[dict[str, Any]]:
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


# --- the page ------------------------------------------------------------------------------------------


def _page(runs: list[_Run]) -> str:
    names = [run.label for run in runs] if len(runs) < 4 else [f"{len(runs)} nets"]
    scenes = _scenes(runs)
    stacks = [(scene.stem, scene.stacks(runs)) for scene in scenes[:MAX_SCENES]]
    context = {
        "title": " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])),
        "runs": runs,
        "begun": min((str(run.begun) for run in runs if run.begun), default=None),
        "ended": max((str(s.result.ended_at) for r in runs for s in r.steps if s.result.ended_at), default=None),
        "problems": [(run, problem) for run in runs for problem in run.problems],  # after the stacks add theirs
        "groups": list(_groups(runs)),
        "latency": _latency_notes(runs),
        "curves": _curves(runs),
        "ious": _class_ious(runs),
        "scenes": stacks,
        "scene_count": len(scenes),
        "legends": _legends(runs),
        "machine": _grouped(runs, lambda step: step.result.machine),
        "decisions": _grouped(runs, lambda step: step.result.decisions),
        "versions": _grouped(runs, lambda step: step.result.versions),
        "colors": charts.COLORS,
    }
    filters: list[Callable[..., Any]] = [_percent, _digits, _times, _points, _drop, _seconds, _moment, _size]
    filters += [_clean, _ratio, _sentence, _goal, _trials]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {function.__name__.lstrip("_"): function for function in filters}
    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(context)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m segdist.report RUN… --out FILE``: write the page and print where it is."""

    def body() -> None:
        config = parse(ReportConfig, sys.argv[1:] if argv is None else argv, "python -m segdist.report")
        print(write_report([Path(run) for run in config.runs], Path(config.out)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
