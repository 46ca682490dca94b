"""How a model is written for a machine that has neither this suite nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["onnx", "openvino", "torchscript"]


@dataclass(frozen=True)
class ExportOptions:
    """What is written: RUN/export/FORMAT-PRECISION/model/, a folder that runs by itself."""

    format: Format = "openvino"
    """openvino (model.xml) and onnx run without torch, by openvino, numpy and Pillow; torchscript needs torch."""
    precision: Literal["fp32", "int8"] = "int8"
    """int8 is what quantize made, fp32 what train made."""

    @property
    def name(self) -> str:
        """Name of the step, and so of its folder."""
        return f"{self.format}-{self.precision}"
