"""A net that takes pixels: normalization lies inside, where int8 need not round it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from segdist.config import ConfigError
from segdist.data.augment import MEAN, STD


class PreparedNet(nn.Module):
    """Pixels in, logits out; the same as the net on normalized images, up to rounding, borders included.

    The deviation is folded into the first convolution's weights. The mean is subtracted before it, so that the zeros
    that the convolution pads with are the mean colour, as they are in training; in int8 it goes into the bias, and the
    pixels are padded with the mean colour (:mod:`segdist.quantization.passes.pixels`), so that the input is never
    rounded.

    Args:
        net: fp32 net in eval mode whose first convolution takes the three normalized channels; it is not changed.

    Shapes: uint8 or float32 pixels 0…255 ``[N, H, W, 3]`` → float32 logits ``[N, classes, H / stride, W / stride]``.

    Raises:
        ConfigError: where the net is in training mode, or its first convolution takes no three channels.
    """

    mean: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if net.training:
            raise ConfigError("the net to prepare is in training mode; call net.eval() first")
        self.net = copy.deepcopy(net)
        first = next((module for module in self.net.modules() if isinstance(module, nn.Conv2d)), None)
        if first is None or first.in_channels != 3:
            raise ConfigError("the net to prepare must begin with a convolution of 3 channels; this one does not")
        with torch.no_grad():
            first.weight.div_(torch.tensor(STD).view(1, 3, 1, 1) * 255)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255)
        self.stride = int(getattr(net, "stride", 1))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Coarse logits of pixels."""
        logits: Tensor = self.net(pixels.permute(0, 3, 1, 2).float() - self.mean)
        return logits
