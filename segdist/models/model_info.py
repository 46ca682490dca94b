"""What a model is, whatever file it is in; free of torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from segdist.data.labels import LabelSet


@dataclass(frozen=True)
class ModelInfo:
    """What a model is: architecture, label set, and figures of the fp32 net."""

    model: str
    width: int
    labels: LabelSet
    parameters: int

    def describe(self) -> dict[str, Any]:
        """What ``result.json`` says of the model."""
        return {
            "model": self.model,
            "width": self.width,
            "labels": self.labels.name,
            "classes": list(self.labels.classes),
            "colors": [list(color) for color in self.labels.colors],
            "parameters_m": round(self.parameters / 1e6, 4),
        }

    def to_plain(self) -> dict[str, Any]:
        """As nested dicts and lists of JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_plain(values: dict[str, Any]) -> ModelInfo:
        """The inverse of :meth:`to_plain`."""
        labels = values["labels"]
        return ModelInfo(
            values["model"],
            values["width"],
            LabelSet(
                labels["name"],
                tuple(labels["classes"]),
                tuple((r, g, b) for r, g, b in labels["colors"]),
                tuple(tuple(names) for names in labels["members"]),
            ),
            values["parameters"],
        )
