"""The optimizer, its learning rate, and the average of the weights that it went through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from segdist.config import TrainingConfig


def build_optimizer(net: nn.Module, how: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with momentum (the HRNet recipe) or AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101)."""
    if how.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), how.lr, weight_decay=how.weight_decay)
    return torch.optim.SGD(net.parameters(), how.lr, momentum=how.momentum, weight_decay=how.weight_decay)


def learning_rate(how: TrainingConfig, step: int, steps: int) -> float:
    """Learning rate of ``step`` (from 0) of ``steps``: lr · (1 - step / steps) ** power, times (step + 1) / warmup
    within the warm-up.

    Polynomial decay as in DeepLab (Chen et al. 2017, https://arxiv.org/abs/1606.00915, section 4.1) and HRNet; gradual
    warm-up as in Goyal et al. 2017 (https://arxiv.org/abs/1706.02677, section 2.2).
    """
    decayed = how.lr * (1 - step / steps) ** how.poly_power
    return float(decayed * min(1.0, (step + 1) / how.warmup) if how.warmup else decayed)


class WeightAverage:
    """Exponential moving average of the weights (Polyak and Juditsky 1992; used for nets by Szegedy et al. 2016).

    After step t (from 1): average ← d · average + (1 - d) · weights with d = min(decay, (1 + t) / (10 + t)), so that
    the first random weights are soon forgotten. Running averages of batch normalization are not averaged again.

    Args:
        net: whose parameters; the average starts as a copy of them, in fp32.
        decay: for example 0.999.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {n: p.detach().float().clone() for n, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the weights after step ``step`` (from 0)."""
        keep = min(self.decay, (2 + step) / (11 + step))
        averages = list(self.weights.values())
        now = [parameter.detach().float() for parameter in net.parameters()]
        torch._foreach_lerp_(averages, now, 1 - keep)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the averages of a checkpoint."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextlib.contextmanager
    def in_place_of(self, net: nn.Module) -> Iterator[None]:
        """Within the context the net has the averages for weights."""
        own = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        _copy_into(net, self.weights)
        try:
            yield
        finally:
            _copy_into(net, own)


@torch.no_grad()
def _copy_into(net: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in net.named_parameters():
        parameter.copy_(weights[name])
