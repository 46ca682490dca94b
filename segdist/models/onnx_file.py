"""The metadata of a net's ONNX file: classes, colours, normalization, stride, accuracy; free of torch.

Each property is a JSON text, so that whoever has the file alone (and ``onnx``, or an engine that shows properties)
knows what it is. The graph's input is ``pixels``, uint8 ``[N, H, W, 3]`` with H and W multiples of 32; its output
``logits``, float32 ``[N, classes, H / stride, W / stride]``, or ``class_ids``, uint8 ``[N, H, W]``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx
from google.protobuf.message import DecodeError

from segdist.config import ConfigError
from segdist.data.augment import MEAN, STD
from segdist.models.model_info import ModelInfo
from segdist.run.files import write_atomic

FORMAT = "segdist-onnx-1"
INPUT, LOGITS, CLASS_IDS = "pixels", "logits", "class_ids"


@dataclass(frozen=True)
class OnnxMetadata:
    """What an ONNX file says of itself."""

    info: ModelInfo
    stride: int
    """The logits have the picture's size divided by it."""
    precision: Literal["fp32", "int8"] = "fp32"
    form: str = "plain"
    """How the graph is laid out, of :data:`segdist.quantization.forms.FORMS`; ``plain`` in fp32."""
    weight_bits: int = 32
    macs: Mapping[str, int] = field(default_factory=dict)
    """Multiply-adds of one picture by its size, HEIGHTxWIDTH."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Of an int8 file: ``goal`` (``accuracy_drop``, ``relative``) and ``fp32`` (``path``, ``sha256``)."""
    verdict: Mapping[str, Any] = field(default_factory=dict)
    """Of an int8 file: ``miou``, ``baseline_miou``, ``goal_miou`` in [0, 1], ``met``, the ``engine``."""

    def to_properties(self) -> dict[str, str]:
        """As ONNX metadata properties."""
        plain = {
            "format": FORMAT,
            "info": self.info.to_plain(),
            "classes": list(self.info.labels.classes),
            "colors": [list(color) for color in self.info.labels.colors],
            "mean": list(MEAN),
            "std": list(STD),
            **{name: getattr(self, name) for name in _OWN},
        }
        return {name: json.dumps(value, ensure_ascii=False, allow_nan=False) for name, value in plain.items()}

    @staticmethod
    def from_properties(properties: Mapping[str, str]) -> OnnxMetadata:
        """The inverse of :meth:`to_properties`; raises KeyError or ValueError where it is not this suite's."""
        values = {name: json.loads(properties[name]) for name in ("format", "info", *_OWN)}
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        info = ModelInfo.from_plain(values["info"])
        return OnnxMetadata(info, **{name: values[name] for name in _OWN})


_OWN = tuple(one.name for one in dataclasses.fields(OnnxMetadata) if one.name != "info")


def save_onnx(path: Path, model: onnx.ModelProto, metadata: OnnxMetadata) -> None:
    """Write a model with its metadata, whole or not at all; properties that it had are replaced."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata.to_properties())
    write_atomic(Path(path), model.SerializeToString())


def load_onnx(path: Path) -> tuple[onnx.ModelProto, OnnxMetadata]:
    """Read a model and its metadata.

    Raises:
        ConfigError: naming the file, where it is missing, damaged, or no ONNX file of this suite.
    """
    try:
        model = onnx.load_model_from_string(Path(path).read_bytes())
        onnx.checker.check_model(model)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        return model, OnnxMetadata.from_properties(properties)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of an ONNX model") from error
    except (DecodeError, onnx.checker.ValidationError, KeyError, TypeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"{path}: is damaged, or no ONNX model of this suite ({reason}); copy it again, or run quantize"
        ) from error


def read_metadata(path: Path) -> OnnxMetadata:
    """What an ONNX file of this suite says of itself; raises as :func:`load_onnx`."""
    return load_onnx(path)[1]
