"""What can be submitted: a task's config, and the resources that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jobs.planning.resources import Resources
from segdist.config import EvaluateConfig, PipelineConfig, QuantizeConfig, TrainConfig, TuneConfig, require


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
class TuneSubmission(TuneConfig):
    """Find the fastest way to train on a node by timing real steps, and remember it for all runs there."""

    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        require(self.resources.nodes == 1, f"--nodes {self.resources.nodes}: tune is for one node; give --nodes 1")


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


Submission = TuneSubmission | TrainSubmission | EvaluateSubmission | QuantizeSubmission | PipelineSubmission
SUBMISSIONS: dict[str, type[Any]] = {
    "train": TrainSubmission,
    "evaluate": EvaluateSubmission,
    "quantize": QuantizeSubmission,
    "pipeline": PipelineSubmission,
    "tune": TuneSubmission,
}
"""What can be submitted, by its name on the command line."""
