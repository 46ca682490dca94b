"""ONNX Runtime's ``quantize_static``: maintained, and on every Python."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from segdist.config import ConfigError
from segdist.quantization.quantizers.interface import Pixels, feed
from segdist.quantization.trials import Ranges

KINDS = ["Conv", "MaxPool", "Concat", "Add", "Resize", "DepthToSpace"]
INSTALL = 'python -m pip install "onnxruntime>=1.20,<2"'


class OrtQuantizer:
    """``quantize_static``; see :class:`segdist.quantization.quantizers.interface.Quantizer`."""

    name = "ort"

    def __call__(
        self, model: Path, calibration: Sequence[Pixels], ranges: Ranges, fp32_nodes: Sequence[str]
    ) -> onnx.ModelProto:
        """Quantize; ``kl`` takes ranges by ONNX Runtime's percentiles, which its engine prefers to entropy."""
        try:
            from onnxruntime.quantization import (
                CalibrationDataReader,
                CalibrationMethod,
                QuantFormat,
                QuantType,
                quantize_static,
            )
        except ImportError as error:
            raise ConfigError(f"--quantizer ort: is not installed ({error}); install it: {INSTALL}") from error

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.left = iter(calibration)

            def get_next(self) -> dict[str, Any] | None:
                picture = next(self.left, None)
                return None if picture is None else feed(picture)

        method = CalibrationMethod.MinMax if ranges == "minmax" else CalibrationMethod.Percentile
        logger = logging.getLogger()
        level = logger.level
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory(prefix="segdist-ort-") as folder:
            output = Path(folder) / "int8.onnx"
            try:
                logger.setLevel(logging.ERROR)  # it advises a pre-processing that the export has done
                quantize_static(
                    str(model), str(output), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=method,
                    nodes_to_exclude=list(fp32_nodes), op_types_to_quantize=KINDS,
                )  # fmt: skip
            finally:
                logger.setLevel(level)
            return onnx.load(output)
