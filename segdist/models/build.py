"""The table of names: from a name to a net."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segdist.config import STRIDE, ConfigError, ModelName, parse_size
from segdist.models.hrnet import HRNetV2
from segdist.models.unet import UNet

MAC_SIZES = ("256x512", "512x1024", "1024x2048")
"""Sizes for which a net's multiply-adds go into the files made of it."""


def build_net(model: str, classes: int, width: int = 64) -> nn.Module:
    """A net with fresh weights.

    Args:
        model: a name of :data:`segdist.config.ModelName`.
        classes: number of output channels.
        width: channels of UNet's first level; HRNetV2 has its width in its name.

    Raises:
        ConfigError: for an unknown name.
    """
    if model == "unet":
        return UNet(classes, width)
    if model in get_args(ModelName):
        return HRNetV2(classes, int(model.removeprefix("hrnetv2_w")))
    raise ConfigError(f"--model {model}: is no net of this suite; known: {', '.join(get_args(ModelName))}")


def count_parameters(net: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_macs(net: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-adds of one image of that size (padded to a multiple of 32), by torch's own counter."""
    height, width = (-(-side // STRIDE) * STRIDE for side in size)
    was_training = net.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, 3, height, width))
    net.train(was_training)
    return int(counter.get_total_flops()) // 2


def macs_by_size(net: nn.Module, sizes: Iterable[str] = ()) -> dict[str, int]:
    """Multiply-adds of one image at :data:`MAC_SIZES` and at further sizes, HEIGHTxWIDTH."""
    return {size: count_macs(net, parse_size(size)) for size in dict.fromkeys((*MAC_SIZES, *sizes))}
