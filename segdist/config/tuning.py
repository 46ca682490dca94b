"""What is tuned for: the work of one node, and how long the search may take."""

from __future__ import annotations

from dataclasses import dataclass

from segdist.config.values import at_least, parse_size


@dataclass(frozen=True)
class TuningConfig:
    """The work of a node in a step, and the time to spend."""

    crop: str = "256x512"
    """Size of the crops, HEIGHTxWIDTH in pixels: that of the training."""
    batch: int = 8
    """Images a step on this node: the training's batch divided by its nodes."""
    budget_s: float = 180.0
    """Seconds after which the search ends with the best found so far."""

    def __post_init__(self) -> None:
        parse_size(self.crop, "crop")
        at_least("batch", self.batch, 1)
        at_least("budget-s", self.budget_s, 1)
