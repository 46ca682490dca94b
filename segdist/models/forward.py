"""From pictures to logits of the wanted size, for any net and any input size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    Shapes: float32 ``[N, 3, H, W]`` → float32 ``[N, classes, *size]``.
    """
    logits = coarse_logits(net, inputs)
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def coarse_logits(net: Net, inputs: Tensor) -> Tensor:
    """Logits at the resolution at which the net gives them.

    The input is padded at the right and bottom to multiples of 32, repeating its border; the logits of the padding are
    cut off, before anybody upsamples them.

    Shapes: float32 ``[N, 3, H, W]`` → float32 ``[N, classes, ⌈H / stride⌉, ⌈W / stride⌉]``.
    """
    height, width = inputs.shape[-2:]
    down, right = -height % STRIDE, -width % STRIDE
    if down or right:
        inputs = F.pad(inputs, (0, right, 0, down), mode="replicate")
    if isinstance(net, nn.Module):  # an input in another layout than the weights' has every layer work in its own
        layout = _layout_of(net)
        inputs = inputs if layout is None else inputs.contiguous(memory_format=layout)
    logits = net(inputs).float()
    stride = inputs.shape[-1] // logits.shape[-1]
    return logits[..., : -(-height // stride), : -(-width // stride)]


def stride_of(net: Net) -> int:
    """By how much a net's logits are smaller than its input, by one look at the smallest input."""
    with torch.inference_mode():
        return STRIDE // int(net(torch.zeros(1, 3, STRIDE, STRIDE)).shape[-1])


def _layout_of(net: nn.Module) -> torch.memory_format | None:
    """The memory format of a net's weights; None where none tells."""
    for weight in net.parameters():
        if weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2] > 1:
            last = weight.is_contiguous(memory_format=torch.channels_last)
            return torch.channels_last if last else torch.contiguous_format
    return None


def upsampled_rows(logits: Tensor, size: tuple[int, int], rows: int = 8) -> Iterator[tuple[slice, Tensor]]:
    """Bilinear upsampling, a few rows at a time: so few that they stay in the cache while they are looked at.

    That halves the time from coarse logits to counted pixels against upsampling all of them first.

    Args:
        logits: float32 ``[classes, h, w]``.
        size: height and width of the whole result.
        rows: how many at a time.

    Yields:
        which rows of the result, and their logits, float32 ``[classes, rows, size[1]]``; as ``F.interpolate`` gives
        them, up to rounding.
    """
    height = logits.shape[1]
    wide = logits
    if logits.shape[2] != size[1]:
        wide = F.interpolate(logits[None], size=(height, size[1]), mode="bilinear", align_corners=False)[0]
    if height == size[0]:
        for begin in range(0, height, rows):
            yield slice(begin, begin + rows), wide[:, begin : begin + rows]
        return
    source = ((torch.arange(size[0]) + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
    upper = source.floor().long().clamp(max=height - 1)
    lower = (upper + 1).clamp(max=height - 1)
    weight = (source - upper)[None, :, None]
    for begin in range(0, size[0], rows):
        part = slice(begin, begin + rows)
        yield part, torch.lerp(wide[:, upper[part]], wide[:, lower[part]], weight[:, part])
