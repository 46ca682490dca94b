"""Q/DQ pairs that change nothing, or round where nothing is gained."""

from __future__ import annotations

import copy

import onnx

from segdist.models.onnx_file import LOGITS
from segdist.quantization.graph import Graph, same_scale

MOVES = ("MaxPool", "DepthToSpace", "Transpose", "Concat", "Identity")
"""What hands values on as they are."""


def remove_idle_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove each pair whose values are rounded to its own scale already; the result is the same to the bit."""
    graph = Graph(copy.deepcopy(model))
    for quantize in graph.nodes("QuantizeLinear"):
        if _rounded_to(graph, quantize.input[0], quantize):
            for dequantize in graph.consumers(quantize.output[0]):
                if graph.is_output(dequantize.output[0]):
                    continue
                graph.redirect(dequantize.output[0], quantize.input[0])
    return graph.finish()


def _rounded_to(graph: Graph, tensor: str, quantize: onnx.NodeProto) -> bool:
    node = graph.producer(tensor)
    if node is None:
        return False
    if node.op_type == "DequantizeLinear":
        return same_scale(graph, node, quantize)
    return node.op_type in MOVES and all(_rounded_to(graph, one, quantize) for one in node.input)


def keep_logits_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the pair in front of the output: logits rounded to 256 levels cost more than any other layer."""
    graph = Graph(copy.deepcopy(model))
    last = graph.dequantized(LOGITS)
    if last is not None:
        quantize = graph.producer(last.input[0])
        assert quantize is not None
        source = graph.producer(quantize.input[0])
        assert source is not None
        graph.graph.node.remove(last)
        old = quantize.input[0]
        graph.redirect(old, LOGITS)
        source.output[list(source.output).index(old)] = LOGITS
        graph.graph.node.remove(quantize)
    return graph.finish()
