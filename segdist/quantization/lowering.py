"""A quantized model as the TorchScript file that runs, and back."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn


def lowered(model: nn.Module, example: Tensor) -> bytes:
    """The model traced and frozen, as a TorchScript file."""
    with torch.no_grad():
        traced = torch.jit.trace(model.eval(), example, check_trace=False)
        frozen = torch.jit.freeze(traced)
    buffer = io.BytesIO()
    torch.jit.save(frozen, buffer)
    return buffer.getvalue()


def load_lowered(file: bytes) -> torch.jit.ScriptModule:
    module: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(file))
    return module
