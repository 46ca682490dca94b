"""Transposed convolutions as 1x1 convolutions and DepthToSpace, which every quantizer knows, and back."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import helper

from segdist.quantization.graph import Graph
from segdist.quantization.passes.weights import bias_of, set_weight


def to_shuffle(fp32: onnx.ModelProto) -> onnx.ModelProto:
    """Each 2x2 transposed convolution of stride 2 as a 1x1 convolution and DepthToSpace: the same sums, in fp32."""
    graph = Graph(copy.deepcopy(fp32))
    for node in graph.nodes("ConvTranspose"):
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        weight = graph.value(node.input[1])
        plain = not any(attributes.get("pads", [])) and attributes.get("group", 1) == 1
        if weight is None or weight.shape[2:] != (2, 2) or list(attributes.get("strides", [])) != [2, 2] or not plain:
            continue
        inputs, outputs = weight.shape[:2]
        as_conv = weight.transpose(1, 2, 3, 0).reshape(4 * outputs, inputs, 1, 1)
        parts = [node.input[0], graph.constant(f"{node.name}/shuffle_weight", as_conv)]
        bias = bias_of(graph, node)
        if bias is not None:
            parts.append(graph.constant(f"{node.name}/shuffle_bias", np.repeat(bias, 4)))
        conv = graph.add("Conv", parts, f"{node.name}/parts", kernel_shape=[1, 1])
        conv.name = node.name
        output = node.output[0]
        graph.graph.node.remove(node)
        graph.add("DepthToSpace", [conv.output[0]], output, blocksize=2, mode="CRD")
    return graph.finish()


def from_shuffle(model: onnx.ModelProto, fp32: onnx.ModelProto, bits: int = 8) -> onnx.ModelProto:
    """A quantized 1x1 convolution and DepthToSpace as the int8 transposed convolution that it was.

    Args:
        model: Q/DQ model made from :func:`to_shuffle` of ``fp32``.
        fp32: with its transposed convolutions.
        bits: of their weights.
    """
    graph, source = Graph(copy.deepcopy(model)), Graph(fp32)
    originals = {node.name: node for node in source.nodes("ConvTranspose")}
    for conv in graph.nodes("Conv"):
        original = originals.get(conv.name)
        if original is None:
            continue
        shuffle, pair = _shuffle_behind(graph, conv)
        quantized = graph.dequantized(conv.input[1]) is not None
        weight, bias = source.value(original.input[1]), bias_of(source, original)
        assert weight is not None
        output = f"{conv.name}/upsampled"
        whole = graph.add("ConvTranspose", [conv.input[0], original.input[1]], output)
        whole.attribute.extend(original.attribute)
        whole.name = conv.name
        if bias is not None:
            whole.input.append(graph.constant(f"{conv.name}/bias", bias))
        graph.graph.node.remove(conv)
        if quantized:
            set_weight(graph, whole, weight, bits)
        else:
            graph.constant(original.input[1], weight)
        if pair is None:
            graph.redirect(shuffle.output[0], output)
            continue
        rounded = graph.add("QuantizeLinear", [output, *pair[0].input[1:]], f"{output}_uint8").output[0]
        back = graph.add("DequantizeLinear", [rounded, *pair[0].input[1:]], f"{output}_rounded").output[0]
        graph.redirect(shuffle.output[0], back)
    return graph.finish()


def _shuffle_behind(
    graph: Graph, conv: onnx.NodeProto
) -> tuple[onnx.NodeProto, tuple[onnx.NodeProto, list[onnx.NodeProto]] | None]:
    """The DepthToSpace behind a convolution, and the Q/DQ pair between them."""
    pair = graph.pair_behind(conv.output[0])
    source = conv.output[0] if pair is None else pair[1][0].output[0]
    (shuffle,) = graph.consumers(source)
    assert shuffle.op_type == "DepthToSpace"
    return shuffle, pair
