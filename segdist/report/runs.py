"""What the report is made of: run folders read into typed data, with what is wrong in each.

Nothing raises for a file that is missing, not whole or of another shape: that becomes a :class:`Problem`, and what
depends on it is None or empty.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdist.cli import read_values
from segdist.config import TASKS, ConfigError
from segdist.report import svg
from segdist.run.folder import PRECISIONS, RunFolder, StepFolder, pixels_of, precision_of, size_of
from segdist.run.result import Result, ResultError, as_number, read_metrics
from segdist.run.speedup import Measured, SpeedUp, speed_up

EXPECTED = ("fp32", "int8")
"""The precisions whose absence is said; bf16 is for CPUs that have it."""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be, for the top of the page."""

    step: str
    kind: str
    text: str
    log: str | None = None


@dataclass(frozen=True)
class Step:
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
        """What its metrics state; where they do not, what its name begins with."""
        return str(self.metrics.get("precision") or precision_of(self.folder.name))

    @property
    def command(self) -> str:
        """The command that runs this step again from its config, on as many ranks."""
        machine = as_table(self.result.machine)
        hosts, ranks = machine.get("hosts"), as_number(machine.get("ranks"))
        nodes = len(hosts) if isinstance(hosts, list) and hosts else 1
        each = ("--ranks-per-node", str(int(ranks) // nodes)) if ranks and ranks > nodes else ()
        words = ("python", "-m", "segdist.launch", *each, self.folder.task, "--config", str(self.folder.config_json))
        return shlex.join(words)

    def at(self, size: str | None) -> dict[str, Any]:
        """An evaluation's metrics at one input size; empty where it was not evaluated at that."""
        return as_table(as_table(self.metrics.get("sizes")).get(size or ""))

    def measured(self, size: str) -> Measured:
        """An evaluation's latencies at one input size."""
        passes = as_number(as_table(self.config.get("evaluation")).get("latency_runs"))
        machine = as_table(self.result.machine)
        return Measured(self.folder.name, self.precision, size, self.at(size), machine, int(passes) if passes else None)


@dataclass
class Run:
    """One run folder: one net of the page."""

    folder: RunFolder
    record: dict[str, Any]
    steps: list[Step]
    epochs: list[dict[str, Any]]
    problems: list[Problem]
    net: int = 0
    label: str = ""

    def first(self, task: str) -> Step | None:
        return next((step for step in self.steps if step.folder.task == task), None)

    @property
    def evaluations(self) -> list[Step]:
        """Those that measured something: fp32 before bf16 and int8, and the one with the plain name first of each."""
        found = [s for s in self.steps if s.folder.task == "evaluate" and as_table(s.metrics.get("sizes"))]

        def place(step: Step) -> tuple[int, bool, int, str]:
            known = PRECISIONS.index(step.precision) if step.precision in PRECISIONS else len(PRECISIONS)
            plain = step.folder.name == step.precision or size_of(step.folder.name) is not None
            return known, not plain, -pixels_of(size_of(step.folder.name)), step.folder.name

        return sorted(found, key=place)

    def evaluation(self, precision: str, size: str | None = None) -> Step | None:
        """The evaluation in that precision at ``size``, by default the run's own; else at any size.

        Its metrics state the precision. A run may have a step for all sizes or a step for each.
        """
        found = [step for step in self.evaluations if step.precision == precision]
        at_size = [step for step in found if step.at(size or self.size)]
        return next(iter(at_size or ([] if size else found)), None)

    def speed_up(self, step: Step, size: str | None) -> SpeedUp:
        """How much faster than the best fp32 an evaluation's model is at one input size."""
        return speed_up(step.measured(size or ""), [other.measured(size or "") for other in self.evaluations])

    @property
    def sizes(self) -> list[str]:
        """Every input size evaluated, the largest first."""
        names = {str(size) for step in self.evaluations for size in step.metrics["sizes"]}
        return sorted(names, key=lambda size: (-pixels_of(size), size))

    @property
    def size(self) -> str | None:
        """The largest size at which all its precisions were evaluated; without one, the largest of any."""
        by_precision: dict[str, set[str]] = {}
        for step in self.evaluations:
            by_precision.setdefault(step.precision, set()).update(size for size in self.sizes if step.at(size))
        shared = [size for size in self.sizes if all(size in sizes for sizes in by_precision.values())]
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
        return svg.glyph(self.net)

    @property
    def begun(self) -> str | None:
        begun = [str(step.result.started_at) for step in self.steps]
        return self.record.get("created_at") or min(begun, default=None)

    @property
    def command(self) -> str:
        """The command that made the run, as a shell takes it."""
        words = self.record.get("command")
        return shlex.join(map(str, words)) if isinstance(words, list) else ""


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read run folders, numbered and named as the page names them."""
    return _name_nets([_read_run(RunFolder(path)) for path in paths])


def _read_run(folder: RunFolder) -> Run:
    problems: list[Problem] = []
    record: dict[str, Any] = {}
    try:
        record = read_values(str(folder.run_json)) if folder.run_json.exists() else {}
    except ConfigError as error:
        problems.append(Problem("run.json", "missing", str(error)))
    folders = {(step.task, step.name): step for step in folder.steps()}
    for asked in as_rows(record.get("steps")):
        task, name = str(asked.get("task")), str(asked.get("name"))
        if task in TASKS and (task, name) not in folders:
            folders[task, name] = folder.step(task, name)
    steps = []
    for step in folders.values():
        try:
            result = step.read_result()
        except ResultError as error:
            problems.append(Problem(_step_title(step), "missing", str(error)))
            continue
        if result.status != "completed":
            reason = result.error or "no reason given"
            problems.append(Problem(_step_title(step), result.status, reason, result.log))
        try:
            config = read_values(str(step.config_json))
        except ConfigError:
            config = {}  # what comes from it is shown as not recorded
        steps.append(Step(step, result, config, as_table(result.metrics)))
    try:
        epochs = as_rows(read_metrics(folder.step("train").metrics_jsonl))
    except (OSError, ValueError) as error:
        epochs = []
        problems.append(Problem("train", "missing", str(error)))
    return Run(folder, record, steps, epochs, problems)


def _name_nets(runs: list[Run]) -> list[Run]:
    """Number and name the runs: by the net, the UNet's width too, and the folder where that is not enough."""
    for number, run in enumerate(runs):
        configs = [as_table(step.config.get("net")) for step in run.steps]
        model = run.metric("model") or next((c["model"] for c in configs if c.get("model")), None)
        width = run.metric("width") or next((c["width"] for c in configs if c.get("width")), None)
        run.net = number
        run.label = str(model or run.folder.name) + (f" (width {width})" if model == "unet" and width else "")
    labels = [run.label for run in runs]
    for run, label in zip(runs, labels):
        if labels.count(label) > 1:
            run.label = f"{label} · {run.folder.name}"
    return runs


def as_table(value: Any) -> dict[str, Any]:
    """A table, or an empty one for anything else that a file may hold."""
    return value if isinstance(value, dict) else {}


def as_rows(value: Any) -> list[dict[str, Any]]:
    """The tables of a list, or none for anything else that a file may hold."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _step_title(folder: StepFolder) -> str:
    return f"evaluate {folder.name}" if folder.task == "evaluate" else folder.task
