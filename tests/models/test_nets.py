"""The nets: size, stride, names as in the official HRNet, any input size, and no op that breaks tracing."""

import pytest
import torch
from torch import nn

from segdist.config import ConfigError
from segdist.data.labels import load_label_set
from segdist.models.build import build_net, count_macs, count_parameters
from segdist.models.forward import predict_logits, resize_input, to_input, upsampled_rows
from segdist.models.load import load_model_file
from segdist.models.model_file import ModelInfo, save_model

pytestmark = pytest.mark.slow  # trains, or starts many processes


@pytest.fixture(scope="module")
def w48():
    return build_net("hrnetv2_w48", 19).eval()


def test_w48_has_the_official_number_of_parameters(w48):
    assert count_parameters(w48) == 65_859_379  # 19 classes; the paper says 65.9 M
    head = w48.last_layer[3].weight.numel() + 19
    assert (count_parameters(w48) - head) / 1e6 == pytest.approx(65.85, abs=0.01)


def test_w48_has_the_official_parameter_names(w48):
    names = set(w48.state_dict())
    for name in (
        "conv1.weight",
        "bn2.running_var",
        "layer1.0.downsample.0.weight",
        "layer1.3.conv3.weight",
        "transition1.0.0.weight",
        "transition1.1.0.0.weight",
        "stage2.0.branches.1.3.conv2.weight",
        "stage2.0.fuse_layers.0.1.0.weight",
        "stage2.0.fuse_layers.1.0.0.0.weight",
        "transition2.2.0.1.bias",
        "stage3.3.fuse_layers.2.0.0.1.running_mean",
        "stage3.3.fuse_layers.2.0.1.0.weight",
        "transition3.3.0.0.weight",
        "stage4.2.branches.3.0.bn1.weight",
        "stage4.2.fuse_layers.3.0.2.0.weight",
        "last_layer.0.weight",
        "last_layer.1.running_mean",
        "last_layer.3.bias",
    ):
        assert name in names, name
    blocks = {name.split(".conv1")[0] for name in names if ".branches." in name and name.endswith("conv1.weight")}
    assert len(blocks) == (2 * 1 + 3 * 4 + 4 * 3) * 4
    assert len({name.split(".fuse_layers")[0] for name in names if ".fuse_layers." in name}) == 1 + 4 + 3


def test_w48_steps_once(w48):
    net = build_net("hrnetv2_w48", 19).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    before = net.conv1.weight.detach().clone()
    net(torch.randn(2, 3, 32, 64)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(net.conv1.weight, before)
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(("model", "width", "stride"), [("unet", 8, 1), ("hrnetv2_w18", 18, 4)])
def test_stride_of_the_logits(model, width, stride):
    net = build_net(model, 13, width).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 96)).shape == (1, 13, 64 // stride, 96 // stride)
    assert net.stride == stride


def test_the_classic_unet_has_31_million_parameters():
    assert count_parameters(build_net("unet", 13, 64)) == pytest.approx(31.04e6, rel=0.001)


def test_multiply_adds_grow_with_the_area_and_leave_the_mode_alone():
    net = build_net("unet", 13, 8).train()
    assert count_macs(net, (64, 128)) == 4 * count_macs(net, (32, 64))
    assert count_macs(net, (33, 65)) == count_macs(net, (64, 96))
    assert net.training


@pytest.mark.parametrize("model", ["unet", "hrnetv2_w18"])
@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 65)])
def test_any_input_size_gives_logits_of_the_wanted_size(model, size):
    net = build_net(model, 13, 8).eval()
    inputs = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert predict_logits(net, inputs, size).shape == (1, 13, *size)
        assert predict_logits(net, inputs, (100, 200)).shape == (1, 13, 100, 200)


def test_padding_changes_nothing_where_it_is_not_seen():
    net = nn.Conv2d(3, 4, 1)
    inputs = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        assert torch.equal(predict_logits(net, inputs, (50, 70)), net(inputs))


@pytest.mark.parametrize("model", ["unet", "hrnetv2_w18"])
def test_a_trace_takes_other_sizes_and_says_the_same(model):
    torch.manual_seed(0)
    net = build_net(model, 13, 8).eval()
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(net, torch.zeros(1, 3, 64, 64)))
        inputs = torch.randn(1, 3, 96, 160)
        expected = net(inputs)
        assert (traced(inputs) - expected).abs().max() < 1e-3 * expected.abs().max()


def test_both_nets_can_be_traced_by_fx_for_quantization():
    for model in ("unet", "hrnetv2_w18"):
        torch.fx.symbolic_trace(build_net(model, 13, 8))


def test_input_is_normalized_and_channels_last():
    images = torch.full((1, 32, 64, 3), 255, dtype=torch.uint8)
    inputs = to_input(images)
    assert inputs.shape == (1, 3, 32, 64)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        inputs[0, :, 0, 0], (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    )
    assert resize_input(inputs, (32, 64)) is inputs
    assert resize_input(inputs, (16, 32)).shape == (1, 3, 16, 32)


def test_an_unknown_net_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="--model segformer: .* known: unet, hrnetv2_w18, hrnetv2_w32, hrnetv2_w48"):
        build_net("segformer", 13)


@pytest.mark.parametrize("size", [(64, 128), (61, 130), (16, 32), (100, 32), (16, 77), (5, 9)])
def test_rows_are_upsampled_as_the_whole_is(size):
    logits = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    found = torch.full_like(whole, float("nan"))
    for rows, part in upsampled_rows(logits, size, rows=7):
        assert part.shape[1] <= 7
        found[:, rows] = part
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("traced", [False, True])
def test_a_model_runs_in_the_layout_that_was_chosen_and_gives_the_same(tmp_path, layout, traced):
    torch.manual_seed(0)
    labels = load_label_set("street13")
    net = build_net("unet", len(labels), 4).eval()
    save_model(tmp_path / "model.pt", ModelInfo("unet", 4, labels, count_parameters(net)), net.state_dict())
    inputs = torch.randn(1, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    model = load_model_file(tmp_path / "model.pt").in_layout(layout, traced)
    seen = []
    if not traced:
        look = lambda m, i, out: seen.append(out.is_contiguous(memory_format=layout))  # noqa: E731
        model.module.down[1].register_forward_hook(look)
    with torch.inference_mode():
        expected, found = predict_logits(net, inputs, (64, 96)), predict_logits(model.scored, inputs, (64, 96))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert all(seen)
    assert len(seen) == (0 if traced else 1)
