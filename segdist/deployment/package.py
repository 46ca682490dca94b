"""Writes the folder that a deployed model lives in: model, what it is, two programs, a README; free of torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segdist.data.augment import MEAN, STD
from segdist.models.model_info import ModelInfo
from segdist.run.files import write_atomic

_FILES = Path(__file__).parent / "files"

_README = """# {net} ({precision})

A segmentation net of {count} classes, trained with segdist; `model.json` names classes, colours and stride.

    python -m pip install {packages}
    python predict.py street.jpg --out predictions

Each picture gets `*_classIds.png` (one class a pixel) and `*_overlay.png`. Pictures are shown to the net as large as
they are; `predict.py` and `net.py` are short: read them. From Python: `net.class_ids(net.load(), picture)`.
`{file}` takes {takes} and gives {gives}; {note}
"""


def write_openvino_package(
    folder: Path, file: str, write_model: Callable[[Path], object], about: Mapping[str, Any], outputs: tuple[str, ...]
) -> None:
    """Write a package whose model is read by OpenVINO: ``model.onnx``, or ``model.xml`` with its ``model.bin``.

    Args:
        folder: made where it is missing.
        file: name of the model's file in it.
        write_model: writes the model at the path it is given.
        about: what :func:`describe` says.
        outputs: names of the graph's outputs.
    """
    gives = " and ".join("uint8 `class_ids`" if name == "class_ids" else f"float32 `{name}`" for name in outputs)
    note = "mean and deviation lie inside the net." + (
        " Any ONNX runtime runs it." if file.endswith(".onnx") else " `model.bin` belongs to it."
    )
    takes = "`pixels`, uint8 [N, H, W, 3], sides multiples of 32,"
    _write(folder, file, write_model, about, "net_openvino.py", "openvino numpy pillow", (takes, gives, note))


def write_torchscript_package(
    folder: Path, file: str, write_model: Callable[[Path], object], about: Mapping[str, Any], normalized: bool
) -> None:
    """As :func:`write_openvino_package`, for TorchScript; ``normalized`` where the net takes normalized images."""
    takes = "normalized images [N, 3, H, W]" if normalized else "pixels 0…255, [N, H, W, 3],"
    about = {**about, "normalized": normalized, "mean": MEAN, "std": STD}
    note = "TorchScript is deprecated by torch, and a program: run a file that you trust."
    _write(folder, file, write_model, about, "net_torch.py", "torch numpy pillow", (takes, "float32 logits", note))


def describe(info: ModelInfo, stride: int, precision: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What ``model.json`` says of a model."""
    return {
        "model": info.model,
        "width": info.width,
        "precision": precision,
        "classes": list(info.labels.classes),
        "colors": [list(color) for color in info.labels.colors],
        "stride": stride,
        "verdict": dict(verdict),
    }


def _write(
    folder: Path,
    file: str,
    write_model: Callable[[Path], object],
    about: Mapping[str, Any],
    program: str,
    packages: str,
    words: tuple[str, str, str],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / file)
    takes, gives, note = words
    readme = _README.format(
        net=about["model"],
        precision=about["precision"],
        count=len(about["classes"]),
        packages=packages,
        file=file,
        takes=takes,
        gives=gives,
        note=note,
    )
    write_atomic(folder / "model.json", json.dumps({**about, "file": file}, indent=2, ensure_ascii=False).encode())
    write_atomic(folder / "net.py", (_FILES / program).read_bytes())
    write_atomic(folder / "predict.py", (_FILES / "predict.py").read_bytes())
    write_atomic(folder / "README.md", readme.encode())
