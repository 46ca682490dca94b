"""Learning rate and average of the weights against their formulas."""

import pytest
import torch
from torch import nn

from segdist.config import ConfigError, TrainingConfig
from segdist.training.ema import ExponentialMovingAverage
from segdist.training.optimizer import learning_rate


def test_the_rate_rises_in_equal_parts_and_falls_as_a_polynomial():
    cfg = TrainingConfig(lr=0.4, warmup=4, poly_power=0.9)
    rates = [learning_rate(cfg, step, 20) for step in range(20)]
    for step, rate in enumerate(rates):
        assert rate == pytest.approx(0.4 * (1 - step / 20) ** 0.9 * min(1, (step + 1) / 4))
    assert learning_rate(TrainingConfig(lr=0.4, poly_power=0), 19, 20) == 0.4


def test_the_average_follows_the_weights_by_its_decay():
    net = nn.Linear(3, 2, bias=False)
    ema = ExponentialMovingAverage(net, 0.9)
    expected = net.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            net.weight += 1.0
        ema.update(dict(net.named_parameters()), step)
        decay = min(0.9, (1 + step + 1) / (10 + step + 1))
        expected = decay * expected + (1 - decay) * net.weight.detach()
    assert torch.allclose(ema.weights["weight"], expected, rtol=1e-5)


def test_the_average_takes_the_weights_place_for_a_while():
    net = nn.Linear(3, 2)
    ema = ExponentialMovingAverage(net, 0.9)
    start = net.weight.detach().clone()
    with torch.no_grad():
        net.weight += 1.0
    with ema.swapped_in(net):
        assert torch.equal(net.weight, start)
    assert torch.equal(net.weight, start + 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema": 1.0}, r"--ema 1.0: must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, r"--label-smoothing -0.1: must be in \[0, 1\)"),
        ({"ohem": 1.5}, r"--ohem 1.5: must be in \[0, 1\]"),
        ({"ohem_keep": 0.0}, r"--ohem-keep 0.0: must be in \(0, 1\]"),
        ({"accumulate": 0}, r"--accumulate 0: must be at least 1"),
        ({"clip_norm": -1.0}, r"--clip-norm -1.0: must be at least 0"),
        ({"keep": 0}, r"--keep 0: must be at least 1"),
    ],
)
def test_values_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**options)
