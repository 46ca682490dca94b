"""From a submission to its steps, each with the exact command that a job runs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.planning.resources import Resources
from jobs.planning.submissions import (
    EvaluateSubmission,
    PipelineSubmission,
    QuantizeSubmission,
    Submission,
    TrainSubmission,
    TuneSubmission,
)
from jobs.record.run_json import Step
from segdist.config import EvaluateConfig, QuantizeConfig, TaskConfig, TrainConfig, TuneConfig, task_of
from segdist.launch.step import MAX_RESTARTS
from segdist.run.folder import RunFolder


@dataclass(frozen=True)
class Commands:
    """The programs a job starts; tests put others in their place."""

    launcher: tuple[str, ...] = (sys.executable, "-m", "segdist.launch")
    reporter: tuple[str, ...] = (sys.executable, "-m", "jobs.collect")


Steps = Sequence[tuple[Step, TaskConfig | None]]


def plan(submission: Submission, run: RunFolder, commands: Commands, cluster: str = "local") -> Steps:
    """The steps of a submission in order, each with its config (the report has none).

    On a cluster the sizes of a pipeline's evaluations are steps of their own, which run side by side.
    """
    config = dataclasses.replace(submission, run=str(run.path))
    if isinstance(config, TuneSubmission):
        stages: list[list[TaskConfig]] = [[_base(config, TuneConfig)]]
    elif isinstance(config, TrainSubmission):
        stages = [[_base(config, TrainConfig)]]
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
    if task in ("quantize", "tune"):
        nodes = ranks_per_node = 1
    size = ["--nodes", str(nodes), "--ranks-per-node", str(ranks_per_node)]
    if resources.max_restarts is not None and resources.max_restarts != MAX_RESTARTS:
        size += ["--max-restarts", str(resources.max_restarts)]
    if resources.starter not in (None, "auto"):
        size += ["--starter", str(resources.starter)]
    command = (*commands.launcher, *size, task, "--config", str(folder.config_json))
    return Step(folder.path.relative_to(run.path).as_posix(), task, folder.name, nodes, ranks_per_node, command, after)
