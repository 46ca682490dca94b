"""How a model is scored and timed: split, input sizes, test-time augmentation, what is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segdist.config.values import at_least, parse_size, require


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured."""

    split: Literal["val", "test", "train"] = "val"
    """Split to evaluate on."""
    sizes: tuple[str, ...] = ("512x1024", "1024x2048")
    """Input sizes, HEIGHTxWIDTH in pixels; scores are counted at the label's own resolution."""
    window: str = ""
    """Show the net a window of this size, HEIGHTxWIDTH, that slides over the resized image; where windows overlap, the
    mean of their logits counts. Empty shows the image whole."""
    stride: str = ""
    """Steps of the window, down x right in pixels; empty takes two thirds of the window."""
    scales: tuple[float, ...] = (1.0,)
    """Factors on the input size; with several, the mean of their probabilities counts."""
    mirror: bool = False
    """Average with the answer to the mirrored image ("flip" in papers)."""
    eval_precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of a model.pt: fp32, or bf16 through autocast (an int8 model has its own)."""
    absent: Literal["skip", "zero", "nan"] = "skip"
    """A class neither in the truth nor predicted: "skip" leaves it out of the mean (cityscapesScripts), "zero" counts
    it as 0 (official HRNet), "nan" leaves the mean undefined (torchvision)."""
    export: bool = False
    """Write every prediction as a PNG of official label ids, export/SIZE/<city>_<seq>_<frame>_pred_labelIds.png."""
    overlays: int = 6
    """Images of which picture, truth, prediction and errors are written: the worst, median and best ones by mIoU."""
    latency_runs: int = 20
    """Timed passes per size, one image each, on rank 0 while the other ranks wait."""
    latency_warmup: int = 3
    """Untimed passes before those."""

    def __post_init__(self) -> None:
        require(bool(self.sizes), "--sizes: must name at least one size; give for example 512x1024")
        for size in self.sizes:
            parse_size(size, "sizes")
        require(len(set(self.sizes)) == len(self.sizes), f"--sizes {' '.join(self.sizes)}: name each size once")
        check_inference_mode(self.window, self.stride, self.scales)
        at_least("overlays", self.overlays, 0)
        at_least("latency-runs", self.latency_runs, 1)
        at_least("latency-warmup", self.latency_warmup, 0)


def check_inference_mode(window: str, stride: str, scales: tuple[float, ...]) -> None:
    """Refuse a window, a stride and scales that leave holes or nothing to average."""
    require(bool(window) or not stride, f"--stride {stride}: needs a window; give for example --window 512x1024")
    if stride:
        sides = zip(parse_size(stride, "stride"), parse_size(window, "window"))
        require(
            all(step <= side for step, side in sides),
            f"--stride {stride}: must not be larger than --window {window}, or pixels are left out; give less",
        )
    elif window:
        parse_size(window, "window")
    require(
        bool(scales) and all(0 < scale <= 8 for scale in scales),
        f"--scales {' '.join(map(str, scales))}: must be above 0 and at most 8; give for example 0.75 1.0 1.25",
    )
