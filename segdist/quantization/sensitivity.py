"""Which layers suffer most from int8."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import fuse_fx

WEIGHT_BITS = 7
"""Bits of an int8 weight that are used, so that 16-bit sums of two products cannot saturate."""


def sensitive_layers(net: nn.Module, image: Tensor, layers: Iterable[str]) -> list[str]:
    """Convolutions and linear layers, those first whose output suffers most from int8.

    Input (8 bits) and weights of one layer at a time are rounded; its error is the squared change of the output over
    the output's variance. Costs three passes.

    Args:
        net: fp32 net in eval mode.
        image: float32 ``[N, 3, H, W]``.
        layers: names of modules.
    """
    fused = fuse_fx(copy.deepcopy(net))
    errors: dict[str, float] = {}

    def watch(name: str, module: nn.Module) -> None:
        layer = module[0] if isinstance(module, nn.Sequential) else module  # a fused convolution and ReLU
        weight: Tensor = layer.get_parameter("weight")

        def measure(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            handle.remove()
            original = weight.clone()
            peaks = weight.abs().amax(dim=tuple(range(1, weight.dim())), keepdim=True).clamp(min=1e-12)
            step = 2 * peaks / (2**WEIGHT_BITS - 1)
            weight.copy_((weight / step).round() * step)
            x = inputs[0]
            step = (x.max().clamp(min=1e-12) - x.min().clamp(max=0)) / 255
            rounded = module((x / step).round() * step)
            weight.copy_(original)
            errors[name] = float((rounded - output).square().mean() / output.var().clamp(min=1e-12))

        handle = module.register_forward_hook(measure)

    with torch.no_grad():
        for name in layers:
            watch(name, fused.get_submodule(name))
        fused(image)
    return sorted(errors, key=lambda name: -errors[name])
