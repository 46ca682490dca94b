"""Write a trained model as a folder that runs by itself: model, predict.py, README."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from segdist.config import ConfigError, ExportConfig
from segdist.deployment.package import describe, write_openvino_package, write_torchscript_package
from segdist.models.forward import stride_of
from segdist.models.load import file_sha256, load_model_file
from segdist.models.model_file import load_model
from segdist.models.onnx_export import export_onnx
from segdist.models.onnx_file import load_onnx
from segdist.models.prepared import PreparedNet
from segdist.run.folder import RunFolder
from segdist.runtime.rank_context import RankContext


def export(context: RankContext, config: ExportConfig) -> dict[str, Any]:
    """Write RUN/export/FORMAT-PRECISION/model/; returns the metrics of ``result.json``.

    Raises:
        ConfigError: with more than one rank; where the run has no such model, or none that the format can hold.
    """
    context.require_one_rank()
    run, options = RunFolder(config.run), config.export
    folder = context.step.path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    if options.format == "torchscript":
        source = _torchscript(run, folder, options.precision)
    else:
        source = _graph(context, config, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    context.log(f"{folder}: {', '.join(path.name for path in files)}; its README.md says how to run it")
    return {
        "format": options.format,
        "precision": options.precision,
        "folder": str(folder),
        "source": str(source),
        "sha256": file_sha256(source),
        "bytes": sum(path.stat().st_size for path in files),
    }


def _graph(context: RankContext, config: ExportConfig, folder: Path) -> Path:
    """Write an ONNX or OpenVINO package; returns the file that it is made from."""
    source = _onnx_of(context, RunFolder(config.run), config.export.precision)
    model, metadata = load_onnx(source)
    about = describe(metadata.info, metadata.stride, metadata.precision, metadata.verdict)
    outputs = tuple(output.name for output in model.graph.output)

    def write_openvino(path: Path) -> None:
        import openvino

        openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)

    if config.export.format == "onnx":
        write_openvino_package(folder, "model.onnx", lambda path: shutil.copyfile(source, path), about, outputs)
    else:
        write_openvino_package(folder, "model.xml", write_openvino, about, outputs)
    return source


def _onnx_of(context: RankContext, run: RunFolder, precision: str) -> Path:
    """The run's int8 file, or an ONNX file of its trained net, made anew: it takes a second, and is that net's."""
    if precision == "int8":
        source = run.model_int8.with_suffix(".onnx")
        if source.is_file():
            return source
        if run.model_int8.is_file():
            raise ConfigError(
                f"{source}: is not there, and {run.model_int8} is TorchScript; give --format torchscript, or "
                "--precision fp32"
            )
        raise ConfigError(f"{source}: is not there; run quantize first, or give --precision fp32")
    net, info = load_model(run.model_pt)
    source = context.step.path / "model.onnx"
    export_onnx(net, info, source)
    return source


def _torchscript(run: RunFolder, folder: Path, precision: str) -> Path:
    """Write a TorchScript package; returns the model's file in the run."""
    if precision == "int8":
        source = run.model_int8
        if not source.is_file():
            raise ConfigError(f"{source}: is not there; run quantize first, or give --precision fp32")
        model = load_model_file(source)
        about = describe(model.info, stride_of(model.net), "int8", {})
        write_torchscript_package(folder, source.name, lambda path: shutil.copyfile(source, path), about, True)
        return source
    net, info = load_model(run.model_pt)
    prepared = PreparedNet(net)
    with torch.no_grad():
        example = torch.zeros(1, 64, 64, 3)
        traced: Any = torch.jit.freeze(torch.jit.trace(prepared, example, check_trace=False))
    about = describe(info, prepared.stride, "fp32", {})
    write_torchscript_package(folder, "model.torchscript", lambda path: traced.save(str(path)), about, False)
    return run.model_pt
