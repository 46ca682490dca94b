"""The trials of a quantization, whatever makes the models: what is tried in which order, and how it is judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from segdist.config import ConfigError

FALLBACK_SHARES = (16, 8, 4, 2)
"""One layer in so many goes back to fp32: the last steps of the tuning, the most sensitive layers first."""
Ranges = Literal["minmax", "kl"]
"""How activation ranges are taken: ``kl`` is by histograms, slower and less moved by outliers."""


@dataclass(frozen=True)
class Plan:
    """One configuration of the net."""

    ranges: Ranges
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
    """Quantizing and scoring."""

    def line(self, goal: float) -> str:
        """What the log says of it."""
        return (
            f"trial {self.number}: mIoU {self.score:.4f} {'meets' if self.score >= goal else 'misses'} the goal "
            f"{goal:.4f}; ranges by {self.plan.ranges}, functions {self.plan.functions}, "
            f"{len(self.plan.kept_fp32)} layers fp32; {self.seconds:.1f} s"
        )


def best_of(trials: Sequence[Trial]) -> Trial:
    """The first of the trials with the highest score."""
    return max(trials, key=lambda trial: trial.score)


def plans(trials: Sequence[Trial], order: Callable[[], Sequence[str]], always: Sequence[str] = ()) -> Iterator[Plan]:
    """What to try, one after the other, until the goal is met.

    Args:
        trials: those so far; whoever iterates adds to them.
        order: the layers with weights that may be in int8, the most sensitive first; called only where it is needed.
        always: layers that stay in fp32.
    """
    fp32 = tuple(always)
    yield Plan("minmax", "int8", fp32)
    yield Plan("kl", "int8", fp32)
    yield dataclasses.replace(best_of(trials).plan, functions="fp32")
    base, layers = best_of(trials).plan, order()
    for count in dict.fromkeys(math.ceil(len(layers) / share) for share in FALLBACK_SHARES):
        yield dataclasses.replace(base, kept_fp32=(*fp32, *layers[:count]))


def least_score(baseline: float, drop: float, relative: bool) -> float:
    """The least mIoU that meets a goal: ``drop`` is a share of the fp32 mIoU if ``relative``, else absolute."""
    return baseline * (1 - drop) if relative else baseline - drop


def checked_score(score: float) -> float:
    """The score as a float.

    Raises:
        ConfigError: where it is no number in [0, 1].
    """
    if not 0 <= score <= 1:
        raise ConfigError(f"quantize: score {score!r}: must be a mIoU in [0, 1]; divide percentages by 100")
    return float(score)
