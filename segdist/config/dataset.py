"""Which images and classes, and which net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segdist.config.values import SCENES, ModelName, PathText, at_least, require


@dataclass(frozen=True)
class DatasetConfig:
    """Which images, and which classes."""

    data: PathText = SCENES
    """Cityscapes root (holds leftImg8bit/ and gtFine/), or "@scenes": 64 + 16 street scenes of 256x512 pixels,
    generated once beside the run folder."""
    labels: PathText = "street13"
    """Label set: street13, cityscapes19, or a TOML file of your own."""
    check: Literal["full", "headers"] = "full"
    """Before the work starts: "full" decodes every file and looks at every label value, "headers" only at names, sizes,
    formats and file ends."""
    workers: int = 2
    """Decoding processes per rank; 0 decodes in the rank itself."""

    def __post_init__(self) -> None:
        require(bool(self.data), '--data "": must name a folder; give the Cityscapes root or "@scenes"')
        require(bool(self.labels), '--labels "": must name a label set; give street13, cityscapes19 or a TOML file')
        at_least("workers", self.workers, 0)


@dataclass(frozen=True)
class NetConfig:
    """Which net."""

    model: ModelName = "unet"
    """Architecture."""
    width: int = 16
    """UNet only: channels of the first stage (the paper has 64: 31 M parameters; 16 has 1.9 M)."""
    init: tuple[Literal["imagenet", "weights"], PathText] | None = None
    """Weights to start from, as KIND FILE. "imagenet": an official HRNet classification file, of which all but the
    head must be there. "weights": a segmentation net, of this suite (model.pt) or an official HRNet file; what fits is
    taken."""

    def __post_init__(self) -> None:
        require(
            self.width >= 4 and self.width % 4 == 0,
            f"--width {self.width}: must be a multiple of 4, at least 4; give for example 16, 32 or 64",
        )
