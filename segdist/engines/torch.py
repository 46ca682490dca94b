"""Torch: a ``model.pt``, eager or traced, in fp32 or bf16, and the TorchScript int8 files of old runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdist.engines.base import BaseEngine
from segdist.engines.class_ids import lazy_class_ids
from segdist.engines.interface import Pictures
from segdist.engines.probe import probe


class TorchEngine(BaseEngine):
    """A model in torch; it is loaded with torch's threads as they are.

    Args:
        path: ``model.pt`` or an int8 model as TorchScript.
        precision: fp32, bf16 or int8; None takes the file's own.
        traced: trace and freeze a ``model.pt``.

    Raises:
        ConfigError: where torch is absent, or the file has not the precision.
    """

    name = "torch"

    def __init__(self, path: Path, precision: str | None = None, traced: bool = False) -> None:
        self.version = probe("torch").require()
        import torch

        from segdist.config import INT8_SUFFIX, ConfigError
        from segdist.models.forward import stride_of
        from segdist.models.load import load_model_file

        self.path, self.threads = Path(path), torch.get_num_threads()
        allowed = ("int8",) if self.path.suffix == INT8_SUFFIX else ("fp32", "bf16")
        if (precision or allowed[0]) not in allowed:
            raise ConfigError(
                f"--inference-precision {precision} with {path}: torch runs this file in {' or '.join(allowed)}; take "
                "that, or another file"
            )
        start = time.perf_counter()
        self.model = load_model_file(self.path, "bf16" if precision == "bf16" else "fp32")
        self.net = (self.model.traced() if traced else None) or self.model.net
        self.info, self.traced = self.model.info, traced
        self.stride = stride_of(self.net)
        self.load_seconds = time.perf_counter() - start

    @property
    def precision(self) -> str:
        """What runs."""
        return self.model.precision

    def prepare(self, height: int, width: int) -> None:
        """Run one picture of the size."""
        self.logits(np.zeros((1, height, width, 3), np.uint8))

    def logits(self, images: Pictures) -> NDArray[np.float32]:
        """See :class:`~segdist.engines.interface.Engine`."""
        import torch

        from segdist.models.forward import coarse_logits, to_input

        with torch.inference_mode():
            found: NDArray[np.float32] = coarse_logits(self.net, to_input(torch.from_numpy(images))).numpy()
        return found

    def class_ids(self, pictures: Pictures) -> NDArray[np.uint8]:
        """See :class:`~segdist.engines.interface.Engine`."""
        size = (pictures.shape[1], pictures.shape[2])
        return np.stack([lazy_class_ids(one, size) for one in self.logits(pictures)])

    def _form(self) -> dict[str, Any]:
        if self.traced:
            return {"form": "traced"}
        return {"form": "eager" if self.model.module is not None else "torchscript"}

    def close(self) -> None:
        """Torch gives memory back by itself."""
