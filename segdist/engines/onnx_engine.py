"""What the engines that run ONNX files have in common: metadata, padding, class ids."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdist.config import STRIDE, ConfigError
from segdist.engines.base import BaseEngine
from segdist.engines.class_ids import lazy_class_ids
from segdist.engines.interface import Pictures
from segdist.engines.probe import probe
from segdist.models.onnx_file import CLASS_IDS, LOGITS, read_metadata
from segdist.system.cpu import read_cpu


class OnnxEngine(BaseEngine):
    """An ONNX file of this suite in an engine that is to be named by the subclass.

    Args:
        path: the file.
        precision: what to run; None takes the file's own.
        threads: threads of one picture; 0 leaves it to the engine.

    Raises:
        ConfigError: where the engine is absent, the file is none of ours, or has not the precision.
    """

    file_precisions: tuple[str, ...] = ("fp32",)
    """Precisions in which the engine runs an fp32 file."""

    def __init__(self, path: Path, precision: str | None, threads: int) -> None:
        self.version = probe(self.name).require()
        self.path, self.threads = Path(path), threads
        self.metadata = read_metadata(self.path)
        self.info, self.stride = self.metadata.info, self.metadata.stride
        self.wanted = precision or self.metadata.precision
        allowed = ("int8",) if self.metadata.precision == "int8" else self.file_precisions
        if self.wanted not in allowed:
            raise ConfigError(
                f"--inference-precision {self.wanted} with {path}: {self.name} runs this {self.metadata.precision} "
                f"file in {' or '.join(allowed)}; take that, or another file"
            )
        self.cpu = read_cpu()
        self.load_seconds = 0.0
        start = time.perf_counter()
        self.outputs = self._open()
        self.load_seconds += time.perf_counter() - start

    @property
    def precision(self) -> str:
        """What runs."""
        return self.wanted

    @abstractmethod
    def _open(self) -> tuple[str, ...]:
        """Load the file; the names of its outputs."""

    @abstractmethod
    def _run(self, pixels: Pictures, output: str) -> NDArray[Any]:
        """One output for padded pictures; it may be overwritten by the next call."""

    def prepare(self, height: int, width: int) -> None:
        """Run one picture of the size."""
        self.class_ids(np.zeros((1, height, width, 3), np.uint8))

    def logits(self, images: Pictures) -> NDArray[np.float32]:
        """See :class:`~segdist.engines.interface.Engine`.

        Raises:
            ConfigError: where the file gives class ids alone.
        """
        if LOGITS not in self.outputs:
            raise ConfigError(f"{self.path}: has class ids and no logits; give a form of the model that has them")
        found = self._run(pad_pixels(images), LOGITS)
        height, width = -(-images.shape[1] // self.stride), -(-images.shape[2] // self.stride)
        return np.array(found[:, :, :height, :width], np.float32)

    def class_ids(self, pictures: Pictures) -> NDArray[np.uint8]:
        """See :class:`~segdist.engines.interface.Engine`."""
        output = CLASS_IDS if CLASS_IDS in self.outputs else LOGITS
        return self._to_class_ids(self._run(pad_pixels(pictures), output), pictures.shape[1], pictures.shape[2])

    def _to_class_ids(self, found: NDArray[Any], height: int, width: int) -> NDArray[np.uint8]:
        """From an output for padded pictures."""
        if found.ndim == 3:
            return np.array(found[:, :height, :width], np.uint8)
        coarse = found[:, :, : -(-height // self.stride), : -(-width // self.stride)]
        return np.stack([lazy_class_ids(one, (height, width)) for one in coarse])

    def _form(self) -> dict[str, Any]:
        return {"form": self.metadata.form, "weight_bits": self.metadata.weight_bits}

    @abstractmethod
    def close(self) -> None:
        """Give memory and threads back."""


def pad_pixels(images: Pictures) -> Pictures:
    """Pad at the bottom and right to multiples of 32, repeating the border; contiguous."""
    down, right = -images.shape[1] % STRIDE, -images.shape[2] % STRIDE
    if down or right:
        images = np.pad(images, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")
    return np.ascontiguousarray(images)
