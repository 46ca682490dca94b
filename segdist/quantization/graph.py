"""An ONNX graph that can be walked and changed: who makes a tensor, who takes it, what a constant holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]


class Graph:
    """A view of a model's graph; what it changes is the model that it was given."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self._constants = {one.name: one for one in self.graph.initializer}

    def nodes(self, *kinds: str) -> list[onnx.NodeProto]:
        """The nodes of some types, in order."""
        return [node for node in self.graph.node if node.op_type in kinds]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Who makes a tensor; None for a constant and for the graph's input."""
        return next((node for node in self.graph.node if tensor in node.output), None)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Who takes a tensor."""
        return [node for node in self.graph.node if tensor in node.input]

    def is_output(self, tensor: str) -> bool:
        """Whether the graph gives a tensor to its caller."""
        return any(one.name == tensor for one in self.graph.output)

    def value(self, name: str) -> Array | None:
        """A constant's value; None where the tensor is none."""
        return numpy_helper.to_array(self._constants[name]) if name in self._constants else None

    def constant(self, name: str, value: Array) -> str:
        """Add a constant, or give it another value; returns its name."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        if name in self._constants:
            self._constants[name].CopyFrom(tensor)
        else:
            self.graph.initializer.append(tensor)
            self._constants[name] = self.graph.initializer[-1]
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        """Add a node with one output; :meth:`finish` puts it in its place."""
        self.graph.node.append(helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))
        return self.graph.node[-1]

    def redirect(self, old: str, new: str) -> None:
        """Let all who take ``old`` take ``new``."""
        for node in self.consumers(old):
            for place, tensor in enumerate(node.input):
                if tensor == old:
                    node.input[place] = new

    def pair_behind(self, tensor: str) -> tuple[onnx.NodeProto, list[onnx.NodeProto]] | None:
        """The QuantizeLinear that alone takes a tensor, and the DequantizeLinear nodes behind it."""
        takers = self.consumers(tensor)
        if len(takers) != 1 or takers[0].op_type != "QuantizeLinear" or self.is_output(tensor):
            return None
        return takers[0], self.consumers(takers[0].output[0])

    def dequantized(self, tensor: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes a tensor."""
        node = self.producer(tensor)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def finish(self) -> onnx.ModelProto:
        """Drop what nobody takes, order the nodes, check the model and return it."""
        self._drop_unused()
        self._sort()
        del self.graph.value_info[:]
        onnx.checker.check_model(self.model)
        return self.model

    def _drop_unused(self) -> None:
        while True:
            wanted = {tensor for node in self.graph.node for tensor in node.input}
            wanted |= {one.name for one in self.graph.output}
            idle = [node for node in self.graph.node if not wanted & set(node.output)]
            if not idle:
                break
            for node in idle:
                self.graph.node.remove(node)
        for name in set(self._constants) - wanted:
            self.graph.initializer.remove(self._constants.pop(name))

    def _sort(self) -> None:
        ready = {"", *self._constants, *(one.name for one in self.graph.input)}
        waiting, ordered = list(self.graph.node), []
        while waiting:
            now = [node for node in waiting if ready.issuperset(node.input)]
            assert now, "a graph with a circle"
            ordered += now
            ready |= {tensor for node in now for tensor in node.output}
            waiting = [node for node in waiting if not ready.issuperset(node.output)]
        del self.graph.node[:]
        self.graph.node.extend(ordered)


def same_scale(graph: Graph, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Whether two Q or DQ nodes have one scale and zero point."""
    for one, other in zip(first.input[1:], second.input[1:]):
        if one != other and not np.array_equal(np.asarray(graph.value(one)), np.asarray(graph.value(other))):
            return False
    return len(first.input) == len(second.input)
