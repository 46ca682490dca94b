"""What all engines have in common: what they say of themselves, and many pictures one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdist.engines.interface import Pictures
from segdist.system.cpu import read_cpu


class BaseEngine(ABC):
    """The part of an :class:`~segdist.engines.interface.Engine` that does not depend on what runs the model."""

    name: Any
    version: str
    path: Path
    threads: int
    load_seconds: float

    @property
    @abstractmethod
    def precision(self) -> str:
        """What runs."""

    @abstractmethod
    def class_ids(self, pictures: Pictures) -> NDArray[np.uint8]:
        """See :class:`~segdist.engines.interface.Engine`."""

    @abstractmethod
    def _form(self) -> dict[str, Any]:
        """What :meth:`describe` says of the model's form."""

    def map_class_ids(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """One after the other; see :class:`~segdist.engines.interface.Engine`."""
        for picture in pictures:
            yield self.class_ids(picture[None])[0]

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says."""
        cpu = read_cpu()
        return {
            "engine": self.name,
            "engine_version": self.version,
            "precision": self.precision,
            **self._form(),
            "cpu": cpu.model,
            "cpu_isa": cpu.isa,
            "cpu_vnni": cpu.has_vnni,
            "cpu_bf16": cpu.has_bf16,
            "threads": self.threads,
            "file_mb": round(self.path.stat().st_size / 1e6, 3),
            "load_s": round(self.load_seconds, 3),
        }
