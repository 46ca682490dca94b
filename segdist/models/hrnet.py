"""HRNetV2 for segmentation (Wang et al. 2019, https://arxiv.org/abs/1908.07919, figure 4).

Parameters have the names of the authors' code (github.com/HRNet/HRNet-Semantic-Segmentation), so that their ImageNet
and Cityscapes weights load. Upsampling is by constant factors, so that a traced net takes any input size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = False) -> nn.Sequential:
    """Convolution without bias, batch normalization and, if asked for, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions to four times ``planes`` channels, and the identity or its projection."""

    def __init__(self, inputs: int, planes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu3 = nn.ReLU(inplace=True)
        self.downsample = conv_bn(inputs, planes * 4, 1) if inputs != planes * 4 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu3(out + identity)


class HighResolutionModule(nn.Module):
    """Parallel branches of four basic blocks, then every branch is added to every other at that one's resolution."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(count) for _ in range(4))) for count in channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._fuse_layer(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relus = nn.ModuleList(nn.ReLU(inplace=True) for _ in channels)

    @staticmethod
    def _fuse_layer(channels: list[int], source: int, target: int) -> nn.Module:
        if source == target:
            return nn.Identity()
        if source > target:
            return conv_bn(channels[source], channels[target], 1)
        steps = target - source
        halvings = [conv_bn(channels[source], channels[source], 3, stride=2, relu=True) for _ in range(steps - 1)]
        return nn.Sequential(*halvings, conv_bn(channels[source], channels[target], 3, stride=2))

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        branches = [branch(x) for branch, x in zip(self.branches, inputs)]
        outputs = []
        for target, (layers, relu) in enumerate(zip(self.fuse_layers, self.relus)):
            terms = [layer(x) for layer, x in zip(layers, branches)]  # type: ignore[call-overload]
            total = terms[0] if target == 0 else terms[0] + terms[1]
            for source in range(1 if target == 0 else 2, len(terms)):
                term = terms[source]
                if source > target:
                    term = upsample(term, 2 ** (source - target))
                total = total + term
            outputs.append(relu(total))
        return outputs


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling of ``[N, C, H, W]`` by a constant integer factor."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


class HRNetV2(nn.Module):
    """HRNetV2 with the concat + 1x1 head at stride 4.

    Args:
        classes: number of output channels.
        width: channels of the highest-resolution branch: 18, 32 or 48 (65.8 M parameters).

    Shapes: images float32 ``[N, 3, H, W]`` with H and W multiples of 32 → logits ``[N, classes, H/4, W/4]``.
    """

    stride = 4

    def __init__(self, classes: int, width: int = 48) -> None:
        super().__init__()
        channels = [width * 2**branch for branch in range(4)]
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu2 = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Bottleneck(64, 64), *(Bottleneck(256, 64) for _ in range(3)))
        self.transition1 = nn.ModuleList(
            [
                conv_bn(256, channels[0], 3, relu=True),
                nn.Sequential(conv_bn(256, channels[1], 3, 2, relu=True)),
            ]
        )
        self.stage2 = self._stage(channels[:2], modules=1)
        self.transition2 = self._new_branch(channels[:3])
        self.stage3 = self._stage(channels[:3], modules=4)
        self.transition3 = self._new_branch(channels[:4])
        self.stage4 = self._stage(channels[:4], modules=3)
        total = sum(channels)
        self.last_layer = nn.Sequential(
            nn.Conv2d(total, total, 1),
            nn.BatchNorm2d(total),
            nn.ReLU(inplace=True),
            nn.Conv2d(total, classes, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            # A block starts as the identity (Goyal et al. 2017, https://arxiv.org/abs/1706.02677, section 5.1).
            if isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    @staticmethod
    def _stage(channels: list[int], modules: int) -> nn.Sequential:
        return nn.Sequential(*(HighResolutionModule(channels) for _ in range(modules)))

    @staticmethod
    def _new_branch(channels: list[int]) -> nn.ModuleList:
        """Identities for the branches there are, then the new one, made from the lowest of them."""
        kept: list[nn.Module] = [nn.Identity() for _ in channels[:-1]]
        return nn.ModuleList([*kept, nn.Sequential(conv_bn(channels[-2], channels[-1], 3, 2, relu=True))])

    def forward(self, images: Tensor) -> Tensor:
        """Logits at a quarter of the images' size."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        branches = self.stage2([transition(x) for transition in self.transition1])
        for transitions, stage in ((self.transition2, self.stage3), (self.transition3, self.stage4)):
            sources = [*branches, branches[-1]]
            branches = stage([transition(source) for transition, source in zip(transitions, sources)])
        features = [branches[0]] + [upsample(x, 2**index) for index, x in enumerate(branches) if index > 0]
        logits: Tensor = self.last_layer(torch.cat(features, dim=1))
        return logits
