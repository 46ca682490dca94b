"""int8 weights of a chosen number of bits, from the fp32 weights."""

from __future__ import annotations

import copy

import numpy as np
import onnx

from segdist.quantization.graph import Array, Graph

SHORT_BITS = 7
"""Without VNNI pairs of uint8 × int8 products are added in 16 bits: 2 × 255 × 127 saturates, 2 × 255 × 63
does not."""


def shorten_weights(model: onnx.ModelProto, fp32: onnx.ModelProto, bits: int = SHORT_BITS) -> onnx.ModelProto:
    """Give the weights of int8 convolutions fewer bits; activations keep their eight.

    Args:
        model: Q/DQ model whose convolutions have the names of ``fp32``'s.
        fp32: the model it was made from: weights are rounded once, not twice.
        bits: of a weight, sign included.
    """
    graph, source = Graph(copy.deepcopy(model)), Graph(fp32)
    originals = {node.name: node for node in source.nodes("Conv", "ConvTranspose")}
    for node in graph.nodes("Conv", "ConvTranspose"):
        if graph.dequantized(node.input[1]) is not None and node.name in originals:
            weight = source.value(originals[node.name].input[1])
            assert weight is not None
            set_weight(graph, node, weight, bits)
    return graph.finish()


def set_weight(graph: Graph, node: onnx.NodeProto, weight: Array, bits: int) -> None:
    """Give a convolution int8 weights with a scale per output channel, and a bias that fits to them.

    Args:
        graph: the convolution's.
        node: Conv or ConvTranspose.
        weight: float32 ``[outputs, inputs, h, w]``, or ``[inputs, outputs, h, w]`` of a ConvTranspose.
        bits: of a weight, sign included.
    """
    axis = 0 if node.op_type == "Conv" else 1
    rounded, scale = rounded_weight(weight, axis, bits)
    bias = bias_of(graph, node)
    name = f"{node.name}/{node.op_type}_weight_{bits}"
    zero = graph.constant(f"{name}_zero", np.zeros(len(scale), np.int8))
    parts = [graph.constant(f"{name}_int8", rounded), graph.constant(f"{name}_scale", scale), zero]
    node.input[1] = graph.add("DequantizeLinear", parts, f"{name}_dequantized", axis=axis).output[0]
    if bias is not None:
        _set_bias(graph, node, bias, scale, bits)


def rounded_weight(weight: Array, axis: int, bits: int) -> tuple[Array, Array]:
    """Symmetric int8 values within ``bits``, and the float32 scale of each channel of ``axis``."""
    peaks = np.abs(weight).max(axis=tuple(other for other in range(weight.ndim) if other != axis))
    top = 2 ** (bits - 1) - 1
    scale = (np.maximum(peaks, 1e-12) / top).astype(np.float32)
    shape = [-1 if other == axis else 1 for other in range(weight.ndim)]
    return np.clip(np.rint(weight / scale.reshape(shape)), -top, top).astype(np.int8), scale


def bias_of(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """A convolution's bias in float32, also where it is stored as int32; None where it has none."""
    if len(node.input) < 3:
        return None
    stored = graph.dequantized(node.input[2])
    if stored is None:
        return graph.value(node.input[2])
    values, scale = graph.value(stored.input[0]), graph.value(stored.input[1])
    assert values is not None
    assert scale is not None
    return (values.astype(np.float64) * scale).astype(np.float32)


def _set_bias(graph: Graph, node: onnx.NodeProto, bias: Array, weight_scale: Array, bits: int) -> None:
    """int32 in steps of input scale × weight scale where the input has one scale, as integer kernels take it."""
    pixels = graph.dequantized(node.input[0])
    scale = None if pixels is None else graph.value(pixels.input[1])
    if scale is None or scale.size != 1:
        node.input[2] = graph.constant(f"{node.name}/bias_{bits}", bias)
        return
    step = (scale.reshape(()) * weight_scale).astype(np.float32)
    top = np.iinfo(np.int32).max
    rounded = np.clip(np.rint(bias / step.astype(np.float64)), -top, top).astype(np.int32)
    name = f"{node.name}/{node.op_type}_bias_{bits}"
    zero = graph.constant(f"{name}_zero", np.zeros(len(step), np.int32))
    parts = [graph.constant(f"{name}_int32", rounded), graph.constant(f"{name}_scale", step), zero]
    node.input[2] = graph.add("DequantizeLinear", parts, f"{name}_dequantized", axis=0).output[0]
