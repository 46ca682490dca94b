"""The best class of each pixel in the graph, for a net of stride 1."""

from __future__ import annotations

import copy

import onnx
from onnx import TensorProto, helper

from segdist.models.onnx_file import CLASS_IDS, LOGITS
from segdist.quantization.graph import Graph


def give_class_ids(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the graph give ``class_ids``, uint8 ``[N, H, W]``, in place of logits; the lower class where two are equal.

    Only for a net of stride 1: elsewhere logits are upsampled before the best is taken.
    """
    graph = Graph(copy.deepcopy(model))
    best = graph.add("ArgMax", [LOGITS], f"{CLASS_IDS}_int64", axis=1, keepdims=0).output[0]
    graph.add("Cast", [best], CLASS_IDS, to=TensorProto.UINT8)
    del graph.graph.output[:]
    graph.graph.output.append(helper.make_tensor_value_info(CLASS_IDS, TensorProto.UINT8, ["n", "rows", "columns"]))
    return graph.finish()
