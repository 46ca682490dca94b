"""A model from its file, whatever its precision: ``model.pt`` in fp32 or bf16, ``model_int8.torchscript``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segdist.config import INT8_SUFFIX, ConfigError, parse_size
from segdist.models.build import count_macs
from segdist.models.forward import Net
from segdist.models.int8_file import load_int8
from segdist.models.model_file import ModelInfo, load_model


class Bf16Autocast(nn.Module):
    """A net whose convolutions run in bf16 through autocast; input and logits stay float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 ``[N, 3, H, W]`` → float32 logits."""
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # a cached weight cannot be traced
            logits: Tensor = self.net(inputs)
        return logits.float()


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model: the net, what it is, its precision, its file's size, and the fp32 module where it is one.

    ``sha256`` is that of the file. ``record`` is what the file of an int8 model says of its making: ``goal``
    (``accuracy_drop``, ``relative``) and ``fp32`` (``path``, ``sha256``), both absent in files of earlier versions.
    ``layout`` is the memory format of an fp32 net's weights.
    """

    net: Net
    info: ModelInfo
    precision: str
    file_bytes: int
    module: nn.Module | None
    macs: dict[str, int]
    sha256: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    layout: torch.memory_format = torch.channels_last
    scoring: Net | None = None

    @property
    def scored(self) -> Net:
        """The net as images are scored with it."""
        return self.net if self.scoring is None else self.scoring

    def in_layout(self, layout: torch.memory_format, traced: bool) -> LoadedModel:
        """The same fp32 model with its weights in a memory format, and traced for scoring where that is wanted."""
        assert self.module is not None
        self.module.to(memory_format=layout)  # type: ignore[call-overload]
        moved = dataclasses.replace(self, layout=layout)
        return dataclasses.replace(moved, scoring=moved.traced()) if traced else moved

    def macs_at(self, size: str) -> int | None:
        """Multiply-adds of one image; for an int8 model as its fp32 original was counted, None at other sizes."""
        if self.module is not None:
            return count_macs(self.module, parse_size(size))
        return self.macs.get(size)

    def in_fp32(self) -> LoadedModel:
        """The same net in fp32; raises ConfigError for an int8 model, whose file has no other weights."""
        if self.module is None:
            raise ConfigError("the file of an int8 model has no fp32 weights; give its model.pt")
        return dataclasses.replace(self, net=self.module, precision="fp32")

    def traced(self) -> Net | None:
        """The net traced and frozen, in its own precision; None where it is so already."""
        if not isinstance(self.net, nn.Module) or self.module is None:
            return None
        example = torch.zeros(1, 3, 64, 64).contiguous(memory_format=self.layout)
        with torch.no_grad():
            traced: Any = torch.jit.trace(self.net, example, check_trace=False)
        frozen: Net = torch.jit.freeze(traced)
        if self.layout == torch.channels_last:  # as images come
            return frozen
        return lambda inputs: frozen(inputs.contiguous(memory_format=self.layout))


def load_model_file(
    path: Path,
    precision: Literal["fp32", "bf16"] = "fp32",
    memory_format: torch.memory_format = torch.channels_last,
) -> LoadedModel:
    """Load a ``model.pt`` or a ``model_int8.torchscript``.

    Args:
        path: the file.
        precision: arithmetic of a ``model.pt``.
        memory_format: layout of a ``model.pt``'s weights.

    Raises:
        ConfigError: where it is missing or is neither, or for bf16 and an int8 model.
    """
    if path.suffix == INT8_SUFFIX:
        if precision != "fp32":
            raise ConfigError(f"{path}: is an int8 model, which has its own arithmetic; leave {precision} out")
        int8, metadata = load_int8(path)
        info, macs = ModelInfo.from_plain(metadata["info"]), metadata["macs"]
        return LoadedModel(int8, info, "int8", path.stat().st_size, None, macs, file_sha256(path), metadata)
    module, info = load_model(path)
    module.to(memory_format=memory_format)  # type: ignore[call-overload]
    net = Bf16Autocast(module).eval() if precision == "bf16" else module
    return LoadedModel(net, info, precision, path.stat().st_size, module, {}, file_sha256(path), layout=memory_format)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
