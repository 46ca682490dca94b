"""How a net is quantized to int8, and how much accuracy that may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segdist.config.values import at_least, parse_size, require


@dataclass(frozen=True)
class QuantizationConfig:
    """Post-training static int8 with Intel Neural Compressor, tuned until the accuracy goal is met."""

    accuracy_drop: float = 0.01
    """How much mIoU may be lost."""
    relative: bool = True
    """The drop is a share of the fp32 mIoU (0.01 of 70 is 0.7 points); otherwise it is in absolute mIoU (0.01 is
    one point)."""
    allow_miss: bool = False
    """Exit with 0 also where the goal is missed (the best model is kept either way)."""
    calibration_images: int = 32
    """Training images from which activation ranges are taken."""
    tuning_split: Literal["train", "val"] = "train"
    """Where the images come from on which every trial is scored: train, those that calibration does not use, or val.
    Who reports on val tunes on train: a model that was chosen on val looks better there than it is."""
    tuning_images: int = 0
    """How many of them, evenly spread; 0 takes as many as val has, or all that train has left where that is less."""
    max_trials: int = 10
    """Configurations tried at the most before giving up."""
    tuning_size: str = "512x1024"
    """Input size for calibration and scoring, HEIGHTxWIDTH in pixels."""

    def __post_init__(self) -> None:
        require(
            0 <= self.accuracy_drop < 1,
            f"--accuracy-drop {self.accuracy_drop}: must be in [0, 1); give for example 0.01",
        )
        at_least("calibration-images", self.calibration_images, 1)
        at_least("tuning-images", self.tuning_images, 0)
        at_least("max-trials", self.max_trials, 1)
        parse_size(self.tuning_size, "tuning-size")
