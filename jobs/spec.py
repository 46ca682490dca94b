"""What a job is, as plain data: the resources asked for, the steps in order, the record in ``run.json``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segdist.config import (
    EvaluateConfig,
    PipelineConfig,
    QuantizeConfig,
    TaskConfig,
    TrainConfig,
    require,
)
from segdist.results import ResultError, RunFolder, StepFolder

SCHEMA_VERSION = 1
ClusterName = Literal["auto", "local", "slurm", "pbs"]


@dataclass(frozen=True)
class Resources:
    """Where the job runs, and on how many processes."""

    cluster: ClusterName = "auto"
    """Scheduler; "auto" looks for sbatch and qsub, and takes this machine where neither is there."""
    nodes: int = 1
    """Nodes; on the local cluster, groups of processes on this machine."""
    ranks_per_node: int = 1
    """Processes on each node."""
    wait: bool = False
    """Show the job's output until it ends, and exit with its exit code."""
    dry_run: bool = False
    """Print what would be run, and touch nothing."""

    def __post_init__(self) -> None:
        for option, value in (("nodes", self.nodes), ("ranks-per-node", self.ranks_per_node)):
            require(value >= 1, f"--{option} {value}: must be at least 1; give 1 or more")

    @property
    def ranks(self) -> int:
        """Processes over all nodes."""
        return self.nodes * self.ranks_per_node


def _refuse_small_batch(batch: int, resources: Resources) -> None:
    require(
        batch >= resources.ranks,
        f"--batch {batch}: must be at least the number of ranks, {resources.ranks} "
        f"(--nodes {resources.nodes} x --ranks-per-node {resources.ranks_per_node}); "
        f"give --batch {resources.ranks} or more, or fewer ranks",
    )


@dataclass(frozen=True)
class TrainSubmission(TrainConfig):
    """Train a net with one process per rank (DDP); per epoch, score it on the validation split."""

    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_small_batch(self.training.batch, self.resources)


@dataclass(frozen=True)
class EvaluateSubmission(EvaluateConfig):
    """Score a model on a split (loss, mIoU, pixel accuracy, IoU per class) and time it."""

    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class QuantizeSubmission(QuantizeConfig):
    """Quantize a trained model to int8 and keep the best one found (always in one process)."""

    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class PipelineSubmission(PipelineConfig):
    """train, evaluate, quantize, evaluate int8, write the report; a failed step stops those after it."""

    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_small_batch(self.training.batch, self.resources)


Submission = TrainSubmission | EvaluateSubmission | QuantizeSubmission | PipelineSubmission
SUBMISSIONS: dict[str, type[Any]] = {
    "train": TrainSubmission,
    "evaluate": EvaluateSubmission,
    "quantize": QuantizeSubmission,
    "pipeline": PipelineSubmission,
}
"""What can be submitted, by its name on the command line."""


@dataclass(frozen=True)
class Commands:
    """The programs a job starts; tests put others in their place."""

    launcher: tuple[str, ...] = (sys.executable, "-m", "segdist.launch")
    reporter: tuple[str, ...] = (sys.executable, "-m", "jobs.collect")


@dataclass(frozen=True)
class Step:
    """One step of a job. ``step`` is its folder within the run: train, evaluate/NAME, quantize or report."""

    step: str
    task: str
    name: str
    nodes: int
    ranks_per_node: int
    command: tuple[str, ...]

    @property
    def label(self) -> str:
        """How people call it: ``train``, ``evaluate int8``."""
        return self.step.replace("/", " ")

    def folder(self, run: RunFolder) -> StepFolder:
        """Where its files are."""
        return run.step(self.task, self.name)


@dataclass(frozen=True)
class Job:
    """The job that runs the steps: enough to find it again from another shell on another day.

    ``pid`` and ``pid_started`` name one process for good (see :func:`jobs.processes.process_started`);
    ``token`` is in the environment of every process of the job; ``submitit_folder`` is relative to the run.
    """

    cluster: str
    id: str
    host: str
    pid: int
    pid_started: str
    token: str
    submitit_folder: str


@dataclass(frozen=True)
class JobSpec:
    """``run.json``: what was asked for, by which command, which versions; ``earlier`` has those before."""

    run: str
    task: str
    created_at: str
    command: tuple[str, ...]
    cwd: str
    resources: dict[str, Any]
    steps: tuple[Step, ...]
    versions: dict[str, str]
    job: Job
    earlier: tuple[dict[str, Any], ...] = ()
    schema_version: int = SCHEMA_VERSION


Steps = Sequence[tuple[Step, TaskConfig | None]]


def plan(submission: Submission, run: RunFolder, commands: Commands) -> Steps:
    """The steps of a submission in order, each with its config (the report has none)."""
    config = dataclasses.replace(submission, run=str(run.path))
    if isinstance(config, TrainSubmission):
        configs: list[TaskConfig] = [_base(config, TrainConfig)]
    elif isinstance(config, EvaluateSubmission):
        configs = [_base(config, EvaluateConfig)]
    elif isinstance(config, QuantizeSubmission):
        configs = [_base(config, QuantizeConfig)]
    else:
        configs = [
            config.train(),
            config.evaluate("fp32"),
            config.quantize(),
            config.evaluate("int8", str(run.model_int8)),
        ]
    steps: list[tuple[Step, TaskConfig | None]] = [(_step(c, run, submission.resources, commands), c) for c in configs]
    if isinstance(config, PipelineSubmission):
        report = ("--format", "html", "--out", str(run.report_html))
        command = (*commands.reporter, str(run.path), *report)
        steps.append((Step("report", "report", "report", 1, 1, command), None))
    return steps


def _base(config: Any, cls: type[Any]) -> Any:
    return cls(**{f.name: getattr(config, f.name) for f in dataclasses.fields(cls)})


def _step(config: TaskConfig, run: RunFolder, resources: Resources, commands: Commands) -> Step:
    if isinstance(config, TrainConfig):
        task, name = "train", "train"
    elif isinstance(config, EvaluateConfig):
        task, name = "evaluate", config.name
    else:
        task, name = "quantize", "quantize"
    nodes, ranks_per_node = resources.nodes, resources.ranks_per_node
    if task == "quantize":
        nodes = ranks_per_node = 1
    folder = run.step(task, name)
    size = ("--nodes", str(nodes), "--ranks-per-node", str(ranks_per_node))
    command = (*commands.launcher, *size, task, "--config", str(folder.config_json))
    return Step(folder.path.relative_to(run.path).as_posix(), task, name, nodes, ranks_per_node, command)


def to_plain(spec: JobSpec) -> dict[str, Any]:
    """The record as JSON values, the schema version first."""
    plain = dataclasses.asdict(spec)
    return {"schema_version": plain.pop("schema_version"), **plain}


def read_spec(path: Path) -> JobSpec:
    """Read a ``run.json``.

    Raises:
        ResultError: where it is missing, not whole or of another schema; the message names the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultError(f"{path}: is missing; give a run folder that jobs.submit has made") from error
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: cannot be read as JSON ({error}); copy the run folder again") from error
    found = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
    if found != SCHEMA_VERSION:
        raise ResultError(
            f"{path}: has schema {found!r}, this version reads {SCHEMA_VERSION}; use the version that wrote it"
        )
    try:
        steps = tuple(Step(**{**s, "command": tuple(s["command"])}) for s in values.pop("steps"))
        tuples = {key: tuple(values[key]) for key in ("command", "earlier")}
        return JobSpec(**{**values, **tuples, "job": Job(**values["job"]), "steps": steps})
    except (KeyError, TypeError) as error:
        raise ResultError(f"{path}: lacks a field or has a foreign one ({error}); copy the run folder again") from error


def step_names(steps: Sequence[Step]) -> str:
    """The steps in one line: ``train → evaluate fp32``."""
    return " → ".join(step.label for step in steps)
