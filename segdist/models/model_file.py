"""``model.pt``: a trained net with what is needed to build and use it."""

from __future__ import annotations

import dataclasses
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segdist.config import ConfigError
from segdist.data.labels import LabelSet
from segdist.models.build import build_net
from segdist.run.files import write_atomic

FORMAT = "segdist-model-1"


@dataclass(frozen=True)
class ModelInfo:
    """What a model is: architecture, label set, and figures of the fp32 net."""

    model: str
    width: int
    labels: LabelSet
    parameters: int

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says of the model."""
        return {
            "model": self.model,
            "width": self.width,
            "labels": self.labels.name,
            "classes": list(self.labels.classes),
            "colors": [list(color) for color in self.labels.colors],
            "parameters_m": round(self.parameters / 1e6, 4),
        }

    def to_plain(self) -> dict[str, Any]:
        """As nested dicts and lists of JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_plain(values: dict[str, Any]) -> ModelInfo:
        """The inverse of :meth:`to_plain`."""
        labels = values["labels"]
        return ModelInfo(
            values["model"],
            values["width"],
            LabelSet(
                labels["name"],
                tuple(labels["classes"]),
                tuple((r, g, b) for r, g, b in labels["colors"]),
                tuple(tuple(names) for names in labels["members"]),
            ),
            values["parameters"],
        )


def torch_bytes(values: Any) -> bytes:
    """What ``torch.save`` would put into a file."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def load_tensors(path: str | Path) -> Any:
    """``torch.load`` of plain data only (``weights_only=True``), on the CPU.

    Raises:
        ConfigError: naming the file, where it is missing, damaged or holds code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: is missing; train first, or give another file") from error
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read ({reason}); mend its storage, or let its owner allow it") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: holds no weights that can be read ({reason}); give a .pt or .pth file") from error


def save_model(path: Path, info: ModelInfo, weights: dict[str, Tensor]) -> None:
    """Write ``model.pt`` atomically; ``weights`` is the net's state dict in fp32."""
    write_atomic(path, torch_bytes({"format": FORMAT, "info": info.to_plain(), "weights": weights}))


def load_model(path: str | Path) -> tuple[nn.Module, ModelInfo]:
    """Build the net of a ``model.pt``, in eval mode, and say what it is.

    Raises:
        ConfigError: naming the file, where it is no ``model.pt``.
    """
    values = load_tensors(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ConfigError(f"{path}: is no model.pt of this suite (format {FORMAT}); give RUN/train/model.pt")
    info = ModelInfo.from_plain(values["info"])
    net = build_net(info.model, len(info.labels), info.width)
    net.load_state_dict(values["weights"])
    return net.eval(), info
