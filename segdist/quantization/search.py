"""Which configurations of a net are tried, in which order, until an accuracy goal is met; the best model is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from segdist.quantization.lowering import load_lowered, lowered
from segdist.quantization.sensitivity import WEIGHT_BITS, sensitive_layers
from segdist.quantization.trials import Plan, Trial, best_of, checked_score, plans

Model = Callable[[Tensor], Tensor]


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

        def order() -> list[str]:
            return sensitive_layers(self.net, self.images[0], [name for name in layers if name not in always])

        return plans(self.trials, order, always)

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
        self.log(self.trials[-1].line(self.goal))
        return score

    @property
    def best(self) -> Trial:
        """The first of the trials with the highest score."""
        return best_of(self.trials)

    @property
    def met(self) -> bool:
        """Whether the last trial reached the goal."""
        return bool(self.trials) and self.trials[-1].score >= self.goal
