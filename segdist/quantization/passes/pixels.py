"""uint8 pixels as they are: the first convolution takes them without any rounding."""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import helper

from segdist.models.onnx_file import INPUT
from segdist.quantization.graph import Array, Graph
from segdist.quantization.passes.weights import bias_of, set_weight


def take_pixels(model: onnx.ModelProto, fp32: onnx.ModelProto, bits: int = 8) -> onnx.ModelProto:
    """Let the first convolution take the pixels themselves, as uint8 of scale 1, padded with the mean colour.

    The mean goes into the bias, which is exact but at the border: there the padding is the rounded mean colour, at most
    half a pixel value away. A model whose first convolution is in fp32 is returned as it is. (A zero point for each
    channel would need no padding, but OpenVINO then computes this convolution in fp32; also where DequantizeLinear
    follows the transposition itself.)

    Args:
        model: Q/DQ model of a :class:`segdist.models.prepared.PreparedNet`.
        fp32: the model it was made from.
        bits: of the first convolution's weights.
    """
    graph, source = Graph(copy.deepcopy(model)), Graph(fp32)
    centred = next(node for node in graph.nodes("Sub"))
    pair = graph.pair_behind(centred.output[0])
    takers = [] if pair is None else [node for one in pair[1] for node in graph.consumers(one.output[0])]
    if not takers or graph.dequantized(takers[0].input[1]) is None:
        return graph.finish()
    assert [node.op_type for node in takers] == ["Conv"], "a prepared net begins with one convolution"
    conv = takers[0]
    mean = graph.value(centred.input[1])
    weight = source.value(next(node for node in source.nodes("Conv") if node.name == conv.name).input[1])
    assert mean is not None
    assert weight is not None
    bias = bias_of(graph, conv)
    moved = -(weight * mean.reshape(1, 3, 1, 1)).sum((1, 2, 3))
    bias = moved if bias is None else bias + moved
    padded = _padded(graph, conv, np.rint(mean.reshape(-1)).astype(np.uint8))
    scale = graph.constant(f"{INPUT}_scale", np.ones((), np.float32))
    zero = graph.constant(f"{INPUT}_zero", np.zeros((), np.uint8))
    conv.input[0] = graph.add("DequantizeLinear", [padded, scale, zero], f"{INPUT}_dequantized").output[0]
    del conv.input[2:]
    conv.input.append(graph.constant(f"{conv.name}/bias", bias.astype(np.float32)))
    set_weight(graph, conv, weight, bits)
    return graph.finish()


def _padded(graph: Graph, conv: onnx.NodeProto, colour: Array) -> str:
    """The pixels, channels first, padded as the convolution would; it does not pad any more."""
    (pads,) = (one for one in conv.attribute if one.name == "pads")
    top, left, bottom, right = helper.get_attribute_value(pads)
    conv.attribute.remove(pads)
    channels = graph.add("Transpose", [INPUT], f"{INPUT}_channels_first", perm=[0, 3, 1, 2]).output[0]
    each = graph.constant(f"{INPUT}_each", np.ones(3, np.int64))
    split = graph.add("Split", [channels, each], f"{INPUT}_0", axis=1)
    split.output.extend(f"{INPUT}_{channel}" for channel in (1, 2))
    around = graph.constant(f"{INPUT}_pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    padded = []
    for channel, part in enumerate(split.output):
        value = graph.constant(f"{INPUT}_mean_{channel}", colour[channel].reshape(()))
        padded.append(graph.add("Pad", [part, around, value], f"{part}_padded").output[0])
    return str(graph.add("Concat", padded, f"{INPUT}_padded", axis=1).output[0])
