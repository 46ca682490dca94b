"""The official categories of the Cityscapes labels, and which of them each class of a label set belongs to."""

from __future__ import annotations

from collections.abc import Mapping

from segdist.data.labels import LabelSet

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
"""Category to its evaluated labels (cityscapesScripts, helpers/labels.py); labels that are ignored belong to none."""


def categories_of(labels: LabelSet) -> dict[str, list[int]] | None:
    """The train ids of each category; None where a class has labels of two of them, so that no category is exact."""
    of_label = {label: category for category, members in CATEGORIES.items() for label in members}
    found: dict[str, list[int]] = {category: [] for category in CATEGORIES}
    for train_id, members in enumerate(labels.members):
        own = {of_label[label] for label in members if label in of_label}
        if len(own) != 1:
            return None
        found[own.pop()].append(train_id)
    return {category: ids for category, ids in found.items() if ids}
