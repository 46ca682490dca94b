"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from segdist.engines.interface import Pictures
from segdist.engines.onnx_engine import OnnxEngine
from segdist.models.onnx_file import INPUT


class OnnxRuntimeEngine(OnnxEngine):
    """An ONNX file in ONNX Runtime. Its threads do not spin while they wait: they would slow others down by 30 %."""

    name = "onnxruntime"

    def _open(self) -> tuple[str, ...]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        return tuple(one.name for one in self._session.get_outputs())

    def _run(self, pixels: Pictures, output: str) -> NDArray[Any]:
        return self._session.run([output], {INPUT: pixels})[0]

    def close(self) -> None:
        """Give memory and threads back."""
        self._session = None
