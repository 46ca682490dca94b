"""The confusion matrix, and the scores that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from segdist.data.labels import IGNORE

Absent = Literal["skip", "zero", "nan"]
"""What a class neither in the truth nor predicted does to the mean: it is left out (cityscapesScripts, mmseg), counts
as 0 (the official HRNet), or makes the mean undefined (torchvision)."""


class ConfusionMatrix:
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

        Raises:
            ValueError: for a train id that is neither a class nor :data:`IGNORE`.
        """
        classes = self.classes
        cells = truth.to(torch.int32) * classes + prediction.to(torch.int32)
        counts = torch.bincount(cells.flatten(), minlength=(IGNORE + 1) * classes)  # ignored pixels: the last row
        counted, strange = counts[: classes**2], counts[classes**2 : IGNORE * classes]
        if strange.any():
            found = classes + int(strange.nonzero()[0]) // classes
            raise ValueError(f"train id {found}: must be below {classes}, or {IGNORE}; check the label set")
        self.matrix += counted.reshape(classes, classes)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.matrix)

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

    def miou(self, absent: Absent = "skip") -> float:
        """Mean IoU; by default over the classes that occur, as cityscapesScripts counts it."""
        return mean_iou(self.iou(), absent)

    def grouped(self, groups: Sequence[Sequence[int]]) -> ConfusionMatrix:
        """The counts by groups of classes; each class must be in one group."""
        found = ConfusionMatrix(len(groups))
        for row, own in enumerate(groups):
            for column, others in enumerate(groups):
                found.matrix[row, column] = self.matrix[list(own)][:, list(others)].sum()
        return found

    def scores(
        self,
        classes: Sequence[str],
        absent: Absent = "skip",
        categories: Mapping[str, Sequence[int]] | None = None,
    ) -> dict[str, Any]:
        """What a result file holds.

        ``miou_pct``, ``pixel_accuracy_pct``, ``iou_pct`` by class (None: absent); with ``categories`` (train ids by
        name) ``category_miou_pct`` and ``category_iou_pct`` as well: without instances, as cityscapesScripts has it.
        """
        found: dict[str, Any] = {
            "miou_pct": percent(self.miou(absent)),
            "pixel_accuracy_pct": percent(self.pixel_accuracy()),
            "iou_pct": {name: percent(value) for name, value in zip(classes, self.iou())},
        }
        if categories is not None:
            grouped = self.grouped(list(categories.values()))
            found["category_miou_pct"] = percent(grouped.miou(absent))
            found["category_iou_pct"] = {name: percent(value) for name, value in zip(categories, grouped.iou())}
        return found


def mean_iou(values: Sequence[float], absent: Absent) -> float:
    """The mean of IoUs in which NaN means absent, by the rule ``absent``; NaN where there is nothing to average."""
    present = [value for value in values if not math.isnan(value)]
    if not present or (absent == "nan" and len(present) < len(values)):
        return math.nan
    return sum(present) / (len(values) if absent == "zero" else len(present))


def percent(value: float) -> float | None:
    """A share as a percentage with four decimals; None for NaN, which JSON has not."""
    return None if math.isnan(value) else round(100 * value, 4)
