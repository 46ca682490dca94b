"""From pictures to logits of the wanted size, for any net and any input size."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from segdist.config import STRIDE
from segdist.data.augment import MEAN, STD

Net = Callable[[Tensor], Tensor]
"""Anything that maps float32 images ``[N, 3, H, W]`` to logits: an nn.Module or a TorchScript module."""


def to_input(images: Tensor) -> Tensor:
    """Normalize with ImageNet's mean and deviation.

    Shapes: uint8 ``[N, H, W, 3]`` → float32 ``[N, 3, H, W]`` whose memory is channels-last, as decoded.
    """
    mean = torch.tensor(MEAN) * 255
    scale = 1 / (torch.tensor(STD) * 255)
    return ((images.float() - mean) * scale).permute(0, 3, 1, 2)


def resize_input(inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, antialiased where it shrinks; the tensor itself where the size is right already."""
    if inputs.shape[-2:] == size:
        return inputs
    return F.interpolate(inputs, size=size, mode="bilinear", align_corners=False, antialias=True)


def predict_logits(net: Net, inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits at ``size`` (height, width), whatever the input's size and the net's stride.

    The input is padded at the right and bottom to multiples of 32, repeating its border; the logits of the padding are
    cut off before they are upsampled.

    Shapes: float32 ``[N, 3, H, W]`` → float32 ``[N, classes, *size]``.
    """
    height, width = inputs.shape[-2:]
    down, right = -height % STRIDE, -width % STRIDE
    if down or right:
        inputs = F.pad(inputs, (0, right, 0, down), mode="replicate")
    logits = net(inputs).float()
    stride = inputs.shape[-1] // logits.shape[-1]
    logits = logits[..., : -(-height // stride), : -(-width // stride)]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
