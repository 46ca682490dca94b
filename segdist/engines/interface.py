"""The interface of an engine: from pictures to logits or class ids, whatever runs the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from segdist.models.model_info import ModelInfo

EngineName = Literal["openvino", "torch", "onnxruntime"]
Precision = Literal["fp32", "bf16", "int8"]
Pictures = NDArray[np.uint8]
"""Pictures of one size as they are decoded, uint8 ``[N, H, W, 3]``."""


class Engine(Protocol):
    """A loaded model. One engine serves one caller at a time."""

    name: str
    version: str
    path: Path
    info: ModelInfo
    stride: int
    threads: int
    load_seconds: float
    """Reading the file, and compiling it for the sizes that were shown so far."""

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16`` or ``int8``: what the engine says it runs, not what was asked for."""

    def prepare(self, height: int, width: int) -> None:
        """Get ready for pictures of a size, so that the first of them takes no longer than the rest."""

    def logits(self, images: Pictures) -> NDArray[np.float32]:
        """uint8 ``[N, H, W, 3]`` → float32 ``[N, classes, ⌈H / stride⌉, ⌈W / stride⌉]``; the caller's own array."""

    def class_ids(self, pictures: Pictures) -> NDArray[np.uint8]:
        """uint8 ``[N, H, W, 3]`` → the class of each pixel, uint8 ``[N, H, W]``; the caller's own array."""

    def map_class_ids(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Many pictures, uint8 ``[H, W, 3]`` of any sizes → their class ids ``[H, W]`` in their order; for throughput,
        so several of them may be read ahead."""

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says of the engine."""

    def close(self) -> None:
        """Give its memory and threads back."""
