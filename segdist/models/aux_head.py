"""A second, smaller head in the middle of a net, which helps training and is left out of the trained model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segdist.models.hrnet import HRNetV2
from segdist.models.unet import UNet


class AuxHeadNet(nn.Module):
    """A net with an auxiliary head (Zhao et al. 2017, https://arxiv.org/abs/1612.01105, section 3.3).

    The head is a 3x3 convolution to a quarter of the channels, at least 16, batch normalization, ReLU, and a 1x1
    convolution. It sits on the finest branch after HRNetV2's stage 3, and on UNet's decoder at stride 4.

    Args:
        net: a UNet or an HRNetV2.
        classes: number of output channels.

    Shapes: images float32 ``[N, 3, H, W]`` → the net's logits, and the head's ``[N, classes, H/4, W/4]``.
    """

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.net = net
        source: nn.Module
        if isinstance(net, HRNetV2):
            source, channels = net.stage3, net.transition1[0][0].out_channels  # type: ignore[index]
        else:
            assert isinstance(net, UNet)
            source, channels = net.merge[1], net.merge[1][0].out_channels  # type: ignore[index]
        hidden = max(16, channels // 4)
        self.auxiliary = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, 1, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, classes, 1),
        )
        for module in self.auxiliary.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self._features: list[Tensor] = []
        source.register_forward_hook(self._take)

    def _take(self, module: nn.Module, inputs: Any, output: Tensor | list[Tensor]) -> None:
        self._features.append(output if isinstance(output, Tensor) else output[0])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads' logits."""
        self._features.clear()
        logits = self.net(images)
        features = self._features.pop()
        return logits, self.auxiliary(features)


def without_aux_head(net: nn.Module) -> nn.Module:
    """The net that is kept when training is over."""
    return net.net if isinstance(net, AuxHeadNet) else net


def main_and_aux_logits(outputs: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    """The logits, and those of the auxiliary head where there is one."""
    if isinstance(outputs, torch.Tensor):
        return outputs, None
    return outputs
