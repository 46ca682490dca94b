"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
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
    def swapped_in(self, net: nn.Module) -> Iterator[None]:
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
