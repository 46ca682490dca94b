"""What a job is, as plain data: the resources asked for, the steps in order, the record in ``run.json``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.resources import Resources
from segdist.config import (
    EvaluateConfig,
    PipelineConfig,
    QuantizeConfig,
    TaskConfig,
    TrainConfig,
    require,
    task_of,
)
from segdist.launch_step import MAX_RESTARTS
from segdist.results import ResultError, RunFolder, StepFolder

SCHEMA_VERSION = 2


def _refuse_small_batch(batch: int, resources: Resources) -> None:
    require(
        batch >= resources.ranks,
        f"--batch {batch}: must be at least the number of ranks, {resources.ranks} "
        f"(--nodes {resources.nodes} x --ranks-per-node {resources.ranks_per_node or 1}); "
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
    """One step of a job. ``step`` is its folder within the run: train, evaluate/NAME, quantize or report.

    It runs when the steps in ``after`` are completed; one with ``always`` when they have ended in whatever way.
    """

    step: str
    task: str
    name: str
    nodes: int
    ranks_per_node: int
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    always: bool = False

    @property
    def label(self) -> str:
        """How people call it: ``train``, ``evaluate int8``."""
        return self.step.replace("/", " ")

    def folder(self, run: RunFolder) -> StepFolder:
        """Where its files are."""
        return run.step(self.task, self.name)


@dataclass(frozen=True)
class Job:
    """One job of the scheduler: enough to find it again from another shell on another day.

    ``steps`` are those it runs, one after the other. ``submitit_folder``, relative to the run, has the job's own
    files; ``output`` is what the batch script printed. On the local cluster ``pid`` and ``pid_started`` name one
    process for good (see :func:`jobs.processes.process_started`), and ``token`` is in the environment of every
    process of the job.
    """

    cluster: str
    id: str
    host: str
    steps: tuple[str, ...]
    submitit_folder: str
    output: str = ""
    pid: int = 0
    pid_started: str = ""
    token: str = ""


@dataclass(frozen=True)
class JobSpec:
    """``run.json``: what was asked for, by which command, which versions; ``earlier`` has those before.

    ``slot`` is for the runs of a sweep on the local cluster: a file to hold a lock on while at work.
    """

    run: str
    task: str
    created_at: str
    command: tuple[str, ...]
    cwd: str
    resources: dict[str, Any]
    profile: dict[str, Any]
    steps: tuple[Step, ...]
    versions: dict[str, str]
    jobs: tuple[Job, ...]
    slot: str = ""
    earlier: tuple[dict[str, Any], ...] = ()
    schema_version: int = SCHEMA_VERSION

    def job_of(self, step: str) -> Job:
        """The job that runs a step."""
        return next(job for job in self.jobs if step in job.steps)


Steps = Sequence[tuple[Step, TaskConfig | None]]


def plan(submission: Submission, run: RunFolder, commands: Commands, cluster: str = "local") -> Steps:
    """The steps of a submission in order, each with its config (the report has none).

    On a cluster the sizes of a pipeline's evaluations are steps of their own, which run side by side.
    """
    config = dataclasses.replace(submission, run=str(run.path))
    if isinstance(config, TrainSubmission):
        stages: list[list[TaskConfig]] = [[_base(config, TrainConfig)]]
    elif isinstance(config, EvaluateSubmission):
        stages = [[_base(config, EvaluateConfig)]]
    elif isinstance(config, QuantizeSubmission):
        stages = [[_base(config, QuantizeConfig)]]
    else:
        stages = [
            [config.train()],
            _evaluations(config.evaluate("fp32"), cluster),
            [config.quantize()],
            _evaluations(config.evaluate("int8", str(run.model_int8)), cluster),
        ]
    steps: list[tuple[Step, TaskConfig | None]] = []
    before: tuple[str, ...] = ()
    for stage in stages:
        made = [_step(one, run, submission.resources, commands, before) for one in stage]
        steps += zip(made, stage)
        before = tuple(step.step for step in made)
    if isinstance(config, PipelineSubmission):
        report = ("--format", "html", "--out", str(run.report_html))
        command = (*commands.reporter, str(run.path), *report)
        every = tuple(step.step for step, _ in steps)
        steps.append((Step("report", "report", "report", 1, 1, command, every, always=True), None))
    return steps


def _evaluations(config: EvaluateConfig, cluster: str) -> list[TaskConfig]:
    sizes = config.evaluation.sizes
    if cluster == "local" or len(sizes) == 1:
        return [config]
    return [
        dataclasses.replace(
            config,
            name=f"{config.name}-{size}",
            evaluation=dataclasses.replace(config.evaluation, sizes=(size,)),
        )
        for size in sizes
    ]


def _base(config: Any, cls: type[Any]) -> Any:
    return cls(**{f.name: getattr(config, f.name) for f in dataclasses.fields(cls)})


def _step(config: TaskConfig, run: RunFolder, resources: Resources, commands: Commands, after: tuple[str, ...]) -> Step:
    task, folder = task_of(config), run.step_of(config)
    nodes, ranks_per_node = resources.nodes, resources.ranks_per_node or 1
    if task == "quantize":
        nodes = ranks_per_node = 1
    size = ["--nodes", str(nodes), "--ranks-per-node", str(ranks_per_node)]
    if resources.max_restarts is not None and resources.max_restarts != MAX_RESTARTS:
        size += ["--max-restarts", str(resources.max_restarts)]
    if resources.starter not in (None, "auto"):
        size += ["--starter", str(resources.starter)]
    command = (*commands.launcher, *size, task, "--config", str(folder.config_json))
    return Step(folder.path.relative_to(run.path).as_posix(), task, folder.name, nodes, ranks_per_node, command, after)


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
        steps = tuple(Step(**_tuples(step, "command", "after")) for step in values["steps"])
        jobs = tuple(Job(**_tuples(job, "steps")) for job in values["jobs"])
        spec = JobSpec(**{**_tuples(values, "command", "earlier"), "jobs": jobs, "steps": steps})
        for step in spec.steps:
            spec.job_of(step.step)
        return spec
    except (KeyError, TypeError, StopIteration) as error:
        raise ResultError(f"{path}: lacks a field or has a foreign one ({error}); copy the run folder again") from error


def _tuples(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {**values, **{key: tuple(values[key]) for key in keys}}


def step_names(steps: Sequence[Step]) -> str:
    """The steps in one line: ``train → evaluate fp32``."""
    return " → ".join(step.label for step in steps)
