"""Each pass over the graph: what it may change, and what it may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from segdist.models.onnx_export import to_onnx
from segdist.models.prepared import PreparedNet
from segdist.models.unet import UNet
from segdist.quantization.graph import Graph
from segdist.quantization.layer_errors import sensitive_layers
from segdist.quantization.passes.class_ids import give_class_ids
from segdist.quantization.passes.pairs import keep_logits_fp32, remove_idle_pairs
from segdist.quantization.passes.pixels import take_pixels
from segdist.quantization.passes.upsampling import from_shuffle, to_shuffle
from segdist.quantization.passes.weights import rounded_weight, shorten_weights
from segdist.quantization.quantizers.inc import IncQuantizer

pytestmark = pytest.mark.slow  # quantizes


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    slopes = np.linspace(0, 200, 96)[None, None, :, None] + rng.integers(0, 55, (count, 64, 96, 3))
    return list(slopes.astype(np.uint8)[:, None])


def run(model: onnx.ModelProto, picture: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"pixels": picture})[0]
    return result


def error(model: onnx.ModelProto, reference: onnx.ModelProto) -> float:
    (picture,) = pictures(1)
    got, expected = run(model, picture), run(reference, picture)
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    torch.manual_seed(0)
    net = UNet(5, 4)
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 96))
    return to_onnx(PreparedNet(net.eval()))


@pytest.fixture(scope="module")
def shuffled(fp32: onnx.ModelProto) -> onnx.ModelProto:
    return to_shuffle(fp32)


@pytest.fixture(scope="module")
def int8(shuffled: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path: Path = tmp_path_factory.mktemp("int8") / "model.onnx"
    onnx.save(shuffled, path)
    return IncQuantizer()(path, pictures(4), "minmax", ())


def test_shuffles_compute_what_transposed_convolutions_do(fp32: onnx.ModelProto, shuffled: onnx.ModelProto) -> None:
    assert not Graph(shuffled).nodes("ConvTranspose")
    assert len(Graph(shuffled).nodes("DepthToSpace")) == 4
    assert error(shuffled, fp32) < 1e-5


def test_shuffles_become_int8_transposed_convolutions_again(int8: onnx.ModelProto, fp32: onnx.ModelProto) -> None:
    graph = Graph(from_shuffle(int8, fp32))
    whole = graph.nodes("ConvTranspose")
    assert len(whole) == 4
    assert not graph.nodes("DepthToSpace")
    assert all(graph.dequantized(node.input[0]) and graph.dequantized(node.input[1]) for node in whole)
    assert error(graph.model, fp32) < error(int8, fp32) + 0.02


def test_the_first_convolution_takes_the_pixels_themselves(int8: onnx.ModelProto, shuffled: onnx.ModelProto) -> None:
    model = take_pixels(int8, shuffled)
    graph = Graph(model)
    assert not graph.nodes("Sub", "Cast")
    first = graph.nodes("Conv")[0]
    dequantize = graph.dequantized(first.input[0])
    assert dequantize is not None
    scale, zero = (graph.value(name) for name in dequantize.input[1:])
    assert (scale, zero) == (1.0, 0)
    assert error(model, shuffled) < error(int8, shuffled) + 0.02


def test_logits_are_not_rounded(int8: onnx.ModelProto, shuffled: onnx.ModelProto) -> None:
    model = keep_logits_fp32(int8)
    last = Graph(model).producer("logits")
    assert last is not None
    assert last.op_type == "Conv"
    assert Graph(model).dequantized(last.input[1]) is not None
    assert error(model, shuffled) < error(int8, shuffled)


def test_idle_pairs_go_and_nothing_changes(int8: onnx.ModelProto) -> None:
    model = remove_idle_pairs(int8)
    assert len(Graph(model).nodes("QuantizeLinear")) < len(Graph(int8).nodes("QuantizeLinear"))
    (picture,) = pictures(1)
    np.testing.assert_allclose(run(model, picture), run(int8, picture), atol=1e-5)


def test_weights_leave_room_for_sums_of_two_products_in_16_bits(
    int8: onnx.ModelProto, shuffled: onnx.ModelProto
) -> None:
    short = take_pixels(int8, shuffled)
    short = shorten_weights(short, shuffled)
    graph = Graph(short)
    peaks = []
    for conv in graph.nodes("Conv"):
        stored = graph.dequantized(conv.input[1])
        assert stored is not None
        peaks.append(int(np.abs(graph.value(stored.input[0]).astype(int)).max()))
    assert len(peaks) == 23
    assert max(peaks) == 63
    assert 2 * 255 * max(peaks) < 2**15
    scales = [sorted(_activations(one)) for one in (short, take_pixels(int8, shuffled))]
    assert scales[0] == scales[1]  # activations keep their eight bits


def _activations(model: onnx.ModelProto) -> list[float]:
    graph = Graph(model)
    return [float(graph.value(node.input[1])) for node in graph.nodes("QuantizeLinear")]  # type: ignore[arg-type]


def test_a_weight_is_rounded_by_half_a_step_at_the_most() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    for axis in (0, 1):
        values, scale = rounded_weight(weight, axis, 7)
        shape = [-1 if one == axis else 1 for one in range(4)]
        assert np.all(np.abs(values * scale.reshape(shape) - weight) <= scale.reshape(shape) * 0.5001)


def test_class_ids_are_the_best_of_the_logits(int8: onnx.ModelProto) -> None:
    (picture,) = pictures(1)
    ids = run(give_class_ids(int8), picture)
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, run(int8, picture).argmax(1))


def test_the_layer_that_rounding_hurts_comes_first() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 1)
    ).eval()
    with torch.no_grad():
        net[2].weight[:, 0] *= 300  # type: ignore[operator]  # one input takes nearly all of the weights' range ...
        net[0].weight[0] /= 3000  # type: ignore[operator]  # ... and carries nearly nothing
        net[0].bias[0] = 1e-3  # type: ignore[index]
    model = to_onnx(PreparedNet(net))
    names = [node.name for node in Graph(model).nodes("Conv")]
    assert sensitive_layers(model, pictures(1)[0], names)[0] == names[1]
