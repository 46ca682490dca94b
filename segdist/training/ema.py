"""An exponential moving average (EMA) of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Exponential moving average of the weights (Polyak and Juditsky 1992; used for nets by Szegedy et al. 2016).

    After step t (from 1): ema ← d · ema + (1 - d) · weights with d = min(decay, (1 + t) / (10 + t)), so that the first
    random weights are soon forgotten. Batch normalization's running statistics are not averaged again.

    The average looks back over about 1 / (1 - decay) steps. Choose that against the steps of an epoch: a few epochs is
    usual, and it must be short beside the whole training. Cityscapes at ``--batch 8`` has 371 steps an epoch, and
    0.999 looks back over 2.7 of them; with 30 steps an epoch that would be 33 epochs, and 0.99 suits. Of two trainings
    of one length, that with the larger batch has fewer steps and wants the smaller decay.

    Args:
        net: whose parameters; the average starts as a copy of them, in fp32.
        decay: for example 0.999.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {n: p.detach().float().clone() for n, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights after step ``step`` (from 0).

        Args:
            weights: by name, fp32; of a net that keeps bf16 weights for itself, the masters that its optimizer keeps.
                What is not averaged is passed over.
            step: number of the step that made them.
        """
        decay = min(self.decay, (2 + step) / (11 + step))
        own = list(self.weights.values())
        torch._foreach_lerp_(own, [weights[name].detach() for name in self.weights], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name, fp32: the living ones."""
        return self.weights

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take a copy of what :meth:`state_dict` gave."""
        for name, weight in self.weights.items():
            weight.copy_(saved[name])

    @contextlib.contextmanager
    def swapped_in(self, net: nn.Module) -> Iterator[None]:
        """Within the context the net has the averaged weights."""
        own = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        _copy_into(net, self.weights)
        try:
            yield
        finally:
            _copy_into(net, own)


@torch.no_grad()
def _copy_into(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in net.named_parameters():
        parameter.copy_(weights[name])
