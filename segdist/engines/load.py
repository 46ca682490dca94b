"""A model file in the engine that is to run it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from segdist.config import ConfigError
from segdist.engines.interface import Engine, EngineName, Precision

ONNX_SUFFIX = ".onnx"


def load_engine(
    path: Path | str,
    engine: EngineName | Literal["auto"] = "auto",
    precision: Precision | None = None,
    threads: int = 0,
    cache_dir: Path | None = None,
    traced: bool = False,
) -> Engine:
    """Load a model.

    Args:
        path: ``.onnx`` for OpenVINO and ONNX Runtime; ``model.pt`` or ``.torchscript`` for torch.
        engine: what runs it; "auto" is OpenVINO for an ONNX file and torch for the others, and nothing else.
        precision: None takes the file's own.
        threads: threads of inference; 0 leaves it to the engine. Torch's are those of the process.
        cache_dir: where OpenVINO keeps compiled models.
        traced: for torch: trace and freeze the net.

    Raises:
        ConfigError: where the engine is absent or does not run such a file, or the file is damaged.
    """
    path = Path(path)
    is_onnx = path.suffix == ONNX_SUFFIX
    name = ("openvino" if is_onnx else "torch") if engine == "auto" else engine
    if is_onnx == (name == "torch"):
        takes = "a model.pt or .torchscript file" if name == "torch" else "an .onnx file (quantize writes them)"
        raise ConfigError(f"--engine {name} with {path}: this engine takes {takes}; give one, or --engine auto")
    if name == "torch":
        from segdist.engines.torch import TorchEngine

        return TorchEngine(path, precision, traced)
    if name == "onnxruntime":
        from segdist.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, precision, threads)
    from segdist.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(path, precision, threads, cache_dir)
