"""From a trained net to its fp32 ONNX file, the seam to every quantizer and engine."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path

import onnx
import torch
from torch import nn

from segdist.models.build import macs_by_size
from segdist.models.model_info import ModelInfo
from segdist.models.onnx_file import INPUT, LOGITS, OnnxMetadata, save_onnx
from segdist.models.prepared import PreparedNet

OPSET = 17


def to_onnx(prepared: PreparedNet) -> onnx.ModelProto:
    """The net as an ONNX graph with any batch, height and width; batch normalization is folded into convolutions."""
    buffer = io.BytesIO()
    axes = {0: "n", 1: "h", 2: "w"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # constants by tracing, as intended; the exporter's deprecation
        torch.onnx.export(
            prepared,
            (torch.zeros(1, 64, 64, 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[LOGITS],
            dynamic_axes={INPUT: axes, LOGITS: {0: "n", 2: "rows", 3: "columns"}},
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    _own_constants(model.graph)
    return model


def _own_constants(graph: onnx.GraphProto) -> None:
    """Give each layer constants of its own: the exporter shares equal ones, but their int8 scales need not be equal."""
    constants = {one.name: one for one in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in constants]:
        own = graph.initializer.add()
        own.CopyFrom(constants[node.input[0]])
        own.name = node.output[0]
        graph.node.remove(node)


def export_onnx(net: nn.Module, info: ModelInfo, path: Path, mac_sizes: Iterable[str] = ()) -> OnnxMetadata:
    """Write a trained net as ``model.onnx``: pixels in, fp32 logits out; returns the metadata it got.

    Args:
        net: fp32 net on the CPU in eval mode; it is not changed.
        info: what it is.
        path: the file.
        mac_sizes: sizes, HEIGHTxWIDTH, whose multiply-adds are counted beside :data:`segdist.models.build.MAC_SIZES`.

    Raises:
        ConfigError: where the net cannot be prepared; see :class:`segdist.models.prepared.PreparedNet`.
    """
    prepared = PreparedNet(net)
    metadata = OnnxMetadata(info, prepared.stride, macs=macs_by_size(net, mac_sizes))
    save_onnx(path, to_onnx(prepared), metadata)
    return metadata
