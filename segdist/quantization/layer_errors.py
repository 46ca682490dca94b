"""Which layers suffer most from int8."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

from segdist.quantization.graph import Array, Graph
from segdist.quantization.passes.weights import rounded_weight
from segdist.quantization.quantizers.interface import Pixels, feed

STATISTICS = ("min", "max", "square")


def sensitive_layers(model: onnx.ModelProto, picture: Pixels, layers: Iterable[str], bits: int = 8) -> list[str]:
    """Convolutions, those first whose output suffers most from int8.

    The error of one layer is estimated as that of independent rounding: a step's variance is step² / 12, of its input
    through the weights and of its weights through the input, over the variance of its output. Costs one pass.

    Args:
        model: prepared fp32 model.
        picture: uint8 ``[1, H, W, 3]``.
        layers: names of Conv nodes.
        bits: of a weight.
    """
    import onnxruntime

    graph = Graph(copy.deepcopy(model))
    convs = {node.name: node for node in graph.nodes("Conv")}
    chosen = [convs[name] for name in layers]
    watched = list(dict.fromkeys(tensor for node in chosen for tensor in (node.input[0], node.output[0])))
    outputs = [name for tensor in watched for name in _watch(graph, tensor)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        graph.finish().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(outputs, session.run(outputs, feed(picture))))
    errors = {}
    for node in chosen:
        weight = graph.value(node.input[1])
        assert weight is not None
        given, result = ([values[f"{one}/{name}"] for name in STATISTICS] for one in (node.input[0], node.output[0]))
        errors[node.name] = _relative_error(weight, given, result, bits)
    return sorted(errors, key=lambda name: -errors[name])


def _watch(graph: Graph, tensor: str) -> list[str]:
    """Let the graph give a tensor's least and greatest value and its channels' mean squares; their names."""
    low, high, square = (f"{tensor}/{name}" for name in STATISTICS)
    graph.add("ReduceMin", [tensor], low, keepdims=0)
    graph.add("ReduceMax", [tensor], high, keepdims=0)
    product = graph.add("Mul", [tensor, tensor], f"{tensor}/product").output[0]
    graph.add("ReduceMean", [product], square, axes=[0, 2, 3], keepdims=0)
    for name, shape in ((low, []), (high, []), (square, ["channels"])):
        graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return [low, high, square]


def _relative_error(weight: Array, given: list[Array], result: list[Array], bits: int) -> float:
    low, high, square = given
    input_step = (max(float(high), 1e-12) - min(float(low), 0.0)) / 255
    weight_step = rounded_weight(weight, 0, bits)[1].astype(np.float64)
    taps = weight.shape[2] * weight.shape[3]
    from_input = input_step**2 / 12 * np.square(weight.astype(np.float64)).sum((1, 2, 3))
    from_weight = weight_step**2 / 12 * taps * float(square.sum())
    return float((from_input + from_weight).mean() / max(float(result[2].mean()), 1e-12))
