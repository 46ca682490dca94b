"""What every quantizer is: prepared fp32 ONNX, calibration pixels and what stays fp32 → Q/DQ ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

from segdist.models.onnx_file import INPUT
from segdist.quantization.trials import Ranges

Pixels = npt.NDArray[np.uint8]


class Quantizer(Protocol):
    """A quantizer; nodes keep their names, weights have int8 with a scale per output channel."""

    name: str

    def __call__(
        self, model: Path, calibration: Sequence[Pixels], ranges: Ranges, fp32_nodes: Sequence[str]
    ) -> onnx.ModelProto:
        """Quantize.

        Args:
            model: prepared fp32 ONNX file, input uint8 ``[N, H, W, 3]``.
            calibration: pictures uint8 ``[1, H, W, 3]``.
            ranges: see :data:`segdist.quantization.trials.Ranges`.
            fp32_nodes: names of nodes that stay fp32.

        Raises:
            ConfigError: where the quantizer is not installed.
        """
        ...


def feed(pixels: Pixels) -> dict[str, Pixels]:
    """The inputs of one calibration run."""
    return {INPUT: np.ascontiguousarray(pixels)}
