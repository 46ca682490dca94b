"""Intel Neural Compressor's ONNX adaptor (3.7.1, 2.x API), one configuration at a time.

``ranges="kl"`` is asked for, but INC gives the same model as for ``minmax``: a known gap, held by a test.
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from segdist.config import ConfigError
from segdist.quantization.quantizers.interface import Pixels
from segdist.quantization.trials import Ranges

INSTALL = 'python -m pip install "neural-compressor==3.7.1" "onnx>=1.17,<1.19" onnxruntime six'
KINDS = ("Conv",)
"""Whose ranges can be taken by another algorithm than minmax; a wish for the others would be dropped as a whole."""


class _Loader:
    """INC's idea of a calibration data set."""

    batch_size = 1

    def __init__(self, pictures: Sequence[Pixels]) -> None:
        self.pictures = pictures

    def __iter__(self) -> Iterator[tuple[Pixels, int]]:
        return ((picture, 0) for picture in self.pictures)


class IncQuantizer:
    """INC's ONNX adaptor; see :class:`segdist.quantization.quantizers.interface.Quantizer`."""

    name = "inc"

    def __call__(
        self, model: Path, calibration: Sequence[Pixels], ranges: Ranges, fp32_nodes: Sequence[str]
    ) -> onnx.ModelProto:
        """Quantize; INC's own log, history and workspace stay out of sight."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of INC's own files
            try:
                from neural_compressor import PostTrainingQuantConfig, quantization, set_workspace
                from neural_compressor.config import options
            except ImportError as error:
                raise ConfigError(f"--quantizer inc: is not installed ({error}); install it: {INSTALL}") from error
            fp32 = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
            config = PostTrainingQuantConfig(
                approach="static",
                quant_format="QDQ",
                calibration_sampling_size=[len(calibration)],
                op_type_dict={kind: {"activation": {"algorithm": [ranges]}} for kind in KINDS},
                op_name_dict={re.escape(name): fp32 for name in fp32_nodes},
            )
            logger, before = logging.getLogger("neural_compressor"), options.workspace
            level = logger.level
            with tempfile.TemporaryDirectory(prefix="segdist-inc-") as folder:
                try:
                    logger.setLevel(logging.CRITICAL)
                    set_workspace(folder)
                    quantized: Any = quantization.fit(str(model), config, calib_dataloader=_Loader(calibration))
                finally:
                    set_workspace(before)
                    logger.setLevel(level)
        if quantized is None:
            raise ConfigError("--quantizer inc: INC gave no model and no reason; give --quantizer ort")
        result: onnx.ModelProto = quantized.model
        for node in result.graph.node:
            node.name = node.name.removesuffix("_quant")
        return result
