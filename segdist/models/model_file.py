"""``model.pt``: a trained net with what is needed to build and use it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segdist.config import ConfigError
from segdist.models.build import build_net
from segdist.models.model_info import ModelInfo
from segdist.run.files import write_atomic

FORMAT = "segdist-model-1"

__all__ = ["ModelInfo", "load_model", "load_tensors", "save_model", "torch_bytes"]


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
