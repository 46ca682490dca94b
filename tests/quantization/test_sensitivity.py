"""Which layers suffer most from int8."""

from __future__ import annotations

import torch
from torch import nn

from segdist.quantization.sensitivity import sensitive_layers


def test_the_layer_that_rounding_hurts_comes_first() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    with torch.no_grad():
        net[2].weight[:, 0] *= 300  # one input channel takes nearly all of the weights' range ...
        net[0].weight[0] /= 3000  # ... and carries nearly nothing
        net[0].bias[0] = 1e-3
    assert (
        sensitive_layers(net, torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)), ["0", "2", "4"])[0]
        == "2"
    )
