"""UNet (Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597) with a width parameter.

Differences from the paper, as usual today: convolutions are padded, so the output has the input's size, and each is
followed by batch normalization.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """(3x3 convolution, batch normalization, ReLU) twice."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """The classic five-level UNet.

    Args:
        classes: number of output channels.
        width: channels of the first level, doubled at each of the four below; the paper has 64 (31 M parameters).

    Shapes: images float32 ``[N, 3, H, W]`` with H and W multiples of 16 → logits ``[N, classes, H, W]``.
    """

    stride = 1

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(double_conv(inputs, outputs) for inputs, outputs in zip([3, *channels], channels))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * outputs, outputs, 2, stride=2) for outputs in reversed(channels[:-1])
        )
        self.merge = nn.ModuleList(double_conv(2 * outputs, outputs) for outputs in reversed(channels[:-1]))
        self.head = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the images' own size."""
        skips = []
        features = self.down[0](images)
        for stage in self.down[1:]:
            skips.append(features)
            features = stage(self.pool(features))
        for up, merge in zip(self.up, self.merge):
            features = merge(torch.cat([skips.pop(), up(features)], dim=1))
        logits: Tensor = self.head(features)
        return logits
