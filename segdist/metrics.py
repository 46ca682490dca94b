"""The confusion matrix, and what is read off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from segdist.data.labels import IGNORE


class Confusion:
    """Counts of pixels by true class (row) and predicted class (column): int64 ``[classes, classes]``.

    Integers add up exactly, so the sum over ranks does not depend on their number.
    """

    def __init__(self, classes: int) -> None:
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64)

    def update(self, truth: Tensor, prediction: Tensor) -> None:
        """Count the pixels of one image or batch.

        Args:
            truth: train ids, any shape, uint8 or int64; :data:`IGNORE` does not count.
            prediction: class indices of the same shape.
        """
        classes = len(self.matrix)
        counted = truth != IGNORE
        cells = truth[counted].long() * classes + prediction[counted].long()
        self.matrix += torch.bincount(cells, minlength=classes**2).reshape(classes, classes)

    @property
    def pixels(self) -> int:
        """Pixels counted."""
        return int(self.matrix.sum())

    def pixel_accuracy(self) -> float:
        """Share of pixels predicted right, in [0, 1]; NaN where nothing was counted."""
        return int(self.matrix.trace()) / self.pixels if self.pixels else math.nan

    def iou(self) -> list[float]:
        """Intersection over union per class, in [0, 1]; NaN for a class neither in the truth nor predicted."""
        hits = self.matrix.diagonal()
        union = self.matrix.sum(0) + self.matrix.sum(1) - hits
        return [int(hit) / int(area) if area else math.nan for hit, area in zip(hits, union)]

    def miou(self) -> float:
        """Mean IoU over the classes that occur, as cityscapesScripts counts it: absent classes are skipped."""
        present = [value for value in self.iou() if not math.isnan(value)]
        return sum(present) / len(present) if present else math.nan

    def scores(self, classes: Sequence[str]) -> dict[str, Any]:
        """What a result file holds: ``miou_pct``, ``pixel_accuracy_pct``, ``iou_pct`` by class (None: absent)."""
        return {
            "miou_pct": percent(self.miou()),
            "pixel_accuracy_pct": percent(self.pixel_accuracy()),
            "iou_pct": {name: percent(value) for name, value in zip(classes, self.iou())},
        }


def percent(value: float) -> float | None:
    """A share as a percentage with four decimals; None for NaN, which JSON has not."""
    return None if math.isnan(value) else round(100 * value, 4)
