"""int8: the tuning keeps the best model and is honest about the goal."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segdist.config import ConfigError
from segdist.models.hrnet import HighResolutionModule, HRNetV2
from segdist.models.unet import UNet
from segdist.quantization.inc import quantize
from segdist.quantization.search import Quantized
from segdist.quantization.trials import Plan

pytestmark = pytest.mark.slow  # trains, or starts many processes


def images(count: int, height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count))


class TinyNet(nn.Module):
    """What the nets are made of, in four layers: convolutions, transposed convolution, add, bilinear upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.first(x))
        wide = nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.last(self.up(features) + wide)
        return out


def make(cls: type[nn.Module], *args: int) -> nn.Module:
    torch.manual_seed(0)
    net = cls(*args)
    with torch.no_grad():
        net(images(2))  # batch normalization that has seen something
    return net.eval()


class Agreement:
    """A score: the share of pixels that get the class they have in fp32; remembers the models it saw."""

    def __init__(self, net: nn.Module, scale: tuple[float, ...] = ()) -> None:
        self.inputs = images(3)
        self.net = net
        self.truth = self._classes(net)
        self.scale = list(scale)
        self.seen: list[object] = []

    def _classes(self, model: object) -> Tensor:
        with torch.inference_mode():
            return torch.cat([model(x[None]).argmax(1) for x in self.inputs])  # type: ignore[operator]

    def __call__(self, model: object) -> float:
        self.seen.append(model)
        same = float((self._classes(model) == self.truth).float().mean())
        return same * (self.scale[len(self.seen) - 1] if self.scale else 1.0)


def run(net: nn.Module, score: object, **options: object) -> Quantized:
    return quantize(net, list(images(4).split(1)), score, images(1), **{"log": lambda _: None, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return make(TinyNet)


@pytest.fixture(scope="module")
def quantized(tiny: nn.Module) -> Quantized:
    return run(tiny, Agreement(tiny), drop=0.2)


def test_a_goal_in_reach_is_met_at_the_first_trial(quantized: Quantized) -> None:
    assert quantized.met
    assert len(quantized.trials) == 1
    assert quantized.baseline == 1.0
    assert quantized.goal == pytest.approx(0.8)
    assert quantized.best.score > 0.9


def test_the_layers_are_int8_but_for_the_last_and_transposed_convolutions(quantized: Quantized) -> None:
    graph = str(quantized.module.inlined_graph)
    assert quantized.best.plan == Plan("minmax", "int8", ("up", "last"))
    assert graph.count("quantized::conv2d") == 2
    assert graph.count("aten::_convolution") == 2
    assert "quantized::conv_transpose2d" not in graph


def test_weights_leave_room_for_sums_of_two_products_in_16_bits(tiny: nn.Module) -> None:
    models: list[torch.jit.ScriptModule] = []

    def score(model: object) -> float:
        if isinstance(model, torch.jit.ScriptModule):
            models.append(model)
        return 1.0

    run(tiny, score)
    packed = [
        node.output().toIValue()
        for node in models[0].graph.findAllNodes("prim::Constant")
        if "Packed" in str(node.output().type())
    ]
    weights = [torch.ops.quantized.conv2d_unpack(conv)[0].int_repr().to(torch.int32) for conv in packed]
    assert len(weights) == 2
    peak = max(int(weight.abs().max()) for weight in weights)
    assert peak > 60
    assert 2 * 255 * peak < 2**15


def test_the_best_model_is_kept_where_the_goal_is_missed(tiny: nn.Module) -> None:
    score = Agreement(tiny, scale=(1.0, 0.5, 0.7, 0.6))
    result = run(tiny, score, drop=0.0, max_trials=3)
    assert not result.met
    assert [trial.number for trial in result.trials] == [1, 2, 3]
    assert result.best == result.trials[1]
    x = images(1)
    torch.testing.assert_close(result.module(x), score.seen[2](x), rtol=0, atol=0)  # type: ignore[operator]
    assert not torch.equal(result.module(x), score.seen[3](x))  # type: ignore[operator]


def test_the_tuning_goes_on_until_the_goal_is_met_with_more_layers_in_fp32(tiny: nn.Module) -> None:
    result = run(tiny, Agreement(tiny, scale=(1.0, 0.5, 0.6, 0.5, 1.0)), drop=0.1)
    assert result.met
    always = ("up", "last")
    assert [trial.plan for trial in result.trials] == [
        Plan("minmax", "int8", always),
        Plan("kl", "int8", always),
        Plan("kl", "fp32", always),
        Plan("kl", "int8", (*always, "first.0")),
    ]


def test_a_score_of_the_goal_itself_meets_it(tiny: nn.Module) -> None:
    result = run(tiny, lambda _: 0.5, drop=0.0)
    assert result.met
    assert len(result.trials) == 1


def test_an_absolute_drop_is_taken_from_the_baseline(tiny: nn.Module) -> None:
    assert run(tiny, lambda _: 0.5, drop=0.1, relative=False).goal == pytest.approx(0.4)
    assert run(tiny, lambda _: 0.5, drop=0.1, relative=True).goal == pytest.approx(0.45)


def test_one_line_a_trial_and_nothing_else(
    tiny: nn.Module, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    run(tiny, Agreement(tiny, scale=(1.0, 0.5, 0.5)), max_trials=2, log=lines.append)
    assert [line.split(":")[0] for line in lines[1:]] == ["trial 1", "trial 2"]
    assert "misses the goal 0.99" in lines[1]
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_score_comes_through(tiny: nn.Module) -> None:
    def score(model: object) -> float:
        if model is tiny:
            return 0.5
        raise KeyError("no such label")

    with pytest.raises(KeyError, match="no such label"):
        run(tiny, score)


def test_what_is_no_miou_is_refused(tiny: nn.Module) -> None:
    for wrong in (71.3, float("nan")):
        with pytest.raises(ConfigError, match=r"\[0, 1\]"):
            run(tiny, lambda _, wrong=wrong: wrong)


def test_a_net_in_training_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="eval"):
        run(TinyNet(), lambda _: 0.5)


def test_the_fp32_net_is_left_as_it_was(tiny: nn.Module, quantized: Quantized) -> None:
    x = images(1)
    assert torch.equal(tiny(x), make(TinyNet)(x))


def test_a_missing_inc_is_named_with_its_install_line(tiny: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "neural_compressor"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "neural_compressor", None)
    with pytest.raises(ConfigError, match=r'pip install "neural-compressor==3.7.1" six'):
        run(tiny, lambda _: 0.5)


class ShortHRNet(HRNetV2):
    """HRNetV2 with one module a stage and one block a branch: each of all 307 layers would take its time."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes, width)
        self.layer1, self.stage3, self.stage4 = self.layer1[:1], self.stage3[:1], self.stage4[:1]
        for module in self.modules():
            if isinstance(module, HighResolutionModule):
                module.branches = nn.ModuleList(blocks[:1] for blocks in module.branches)  # type: ignore[index]


@pytest.mark.parametrize("cls", [UNet, ShortHRNet])
def test_both_nets_keep_their_answers_and_take_other_sizes(cls: type[nn.Module]) -> None:
    net = make(cls, 5, 4)
    result = run(net, Agreement(net), drop=0.5, max_trials=1)
    for size in ((64, 96), (32, 32), (128, 64)):
        x = images(1, *size)
        with torch.inference_mode():
            expected, got = net(x), result.module(x)
        assert got.shape == expected.shape
        assert float((got - expected).norm() / expected.norm()) < 0.2


class Concatenation(nn.Module):
    """A small range beside a large one that comes through an upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1, 2), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.large.weight *= 50

    def forward(self, x: Tensor) -> Tensor:
        up = nn.functional.interpolate(self.large(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.last(torch.cat([self.small(x), up], dim=1))
        return out


def test_the_inputs_of_a_concatenation_have_one_range() -> None:
    net = make(Concatenation)
    result = run(net, lambda _: 1.0)
    x = images(1)
    torch.set_warn_always(True)  # torch warns of inputs that differ, once per process
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("error")
            expected, got = net(x), result.module(x)
    finally:
        torch.set_warn_always(False)
    assert float((got - expected).norm() / expected.norm()) < 0.05
