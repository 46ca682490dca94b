"""Which configurations of a net are tried, in which order, until an accuracy goal is met; the best model is kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from segdist.config import ConfigError
from segdist.quantization.lowering import load_lowered, lowered
from segdist.quantization.sensitivity import WEIGHT_BITS, sensitive_layers

FALLBACK_SHARES = (16, 8, 4, 2)
"""One layer in so many goes back to fp32: the last steps of the tuning, the most sensitive layers first."""

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """One configuration of the net."""

    ranges: Literal["minmax", "kl"]
    """How activation ranges are taken: ``kl`` is by histograms, slower and less moved by outliers."""
    functions: Literal["int8", "fp32"]
    """Precision of what has no weights: additions, concatenations, upsampling."""
    kept_fp32: tuple[str, ...]
    """Layers with weights that stay in fp32."""


@dataclass(frozen=True)
class Trial:
    """A plan that was quantized and scored."""

    number: int
    """Counted from 1."""
    plan: Plan
    score: float
    """mIoU in [0, 1]."""
    seconds: float
    """Quantizing, lowering and scoring."""


@dataclass(frozen=True)
class Quantized:
    """The best int8 model that was found, and how."""

    module: torch.jit.ScriptModule
    """Traced and frozen: float32 ``[N, 3, H, W]`` → float32 logits, as the fp32 net."""
    best: Trial
    baseline: float
    """mIoU of the fp32 net."""
    goal: float
    """The least mIoU that was asked for."""
    trials: tuple[Trial, ...]
    weight_bits: int = WEIGHT_BITS

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.best.score >= self.goal


@dataclass
class Tuning:
    """What the trials share: the task, the trials so far, and the best model as a file in memory."""

    net: nn.Module
    images: list[Tensor]
    score: Callable[[Model], float]
    example: Tensor
    baseline: float
    goal: float
    log: Callable[[str], None]
    trials: list[Trial] = field(default_factory=list)
    best_file: bytes = b""
    error: BaseException | None = None
    plan: Plan | None = None
    started: float = 0.0

    def plans(self, layers: list[str], always: list[str]) -> Iterator[Plan]:
        """What to try, one after the other, until the goal is met.

        Args:
            layers: names of the layers with weights.
            always: those of them that stay in fp32.
        """
        fp32 = tuple(always)
        yield Plan("minmax", "int8", fp32)
        yield Plan("kl", "int8", fp32)
        yield dataclasses.replace(self.best.plan, functions="fp32")
        base = self.best.plan
        order = sensitive_layers(self.net, self.images[0], [name for name in layers if name not in always])
        for count in dict.fromkeys(math.ceil(len(order) / share) for share in FALLBACK_SHARES):
            yield dataclasses.replace(base, kept_fp32=(*fp32, *order[:count]))

    def begin(self, plan: Plan) -> None:
        """Note that a trial of ``plan`` starts."""
        self.plan, self.started = plan, time.perf_counter()

    def end(self, model: nn.Module) -> float:
        """Lower and score the trial's model, keep it if it is the best, and return its mIoU."""
        file = lowered(model, self.example)
        score = checked_score(self.score(load_lowered(file)))
        assert self.plan is not None  # begin was called
        seconds = time.perf_counter() - self.started
        self.trials.append(Trial(len(self.trials) + 1, self.plan, score, seconds))
        if self.best is self.trials[-1]:
            self.best_file = file
        self.log(
            f"trial {len(self.trials)}: mIoU {score:.4f} {'meets' if self.met else 'misses'} the goal {self.goal:.4f}; "
            f"ranges by {self.plan.ranges}, functions {self.plan.functions}, "
            f"{len(self.plan.kept_fp32)} layers fp32; {seconds:.1f} s"
        )
        return score

    @property
    def best(self) -> Trial:
        """The first of the trials with the highest score."""
        return max(self.trials, key=lambda trial: trial.score)

    @property
    def met(self) -> bool:
        """Whether the last trial reached the goal."""
        return bool(self.trials) and self.trials[-1].score >= self.goal


def checked_score(score: float) -> float:
    """The score as a float, if it is one in [0, 1]."""
    if not 0 <= score <= 1:
        raise ConfigError(f"quantize: score {score!r}: must be a mIoU in [0, 1]; divide percentages by 100")
    return float(score)
