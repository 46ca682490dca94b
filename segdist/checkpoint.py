"""Checkpoints: ``last.pt`` and ``best.pt``, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from segdist.models.files import torch_bytes
from segdist.results import write_atomic


def save_checkpoint(
    folder: Path,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    progress: Mapping[str, Any],
    is_best: bool,
) -> None:
    """Write ``last.pt``, and the same as ``best.pt`` where ``is_best``.

    Args:
        folder: the step's ``checkpoints``.
        weights: the net's state dict.
        optimizer: the optimizer's state dict.
        progress: the row of ``metrics.jsonl`` it belongs to (epoch, step, scores).
        is_best: whether no earlier epoch scored higher.
    """
    data = torch_bytes({"weights": dict(weights), "optimizer": dict(optimizer), "progress": dict(progress)})
    write_atomic(folder / "last.pt", data)
    if is_best:
        write_atomic(folder / "best.pt", data)
