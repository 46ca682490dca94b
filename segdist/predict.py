"""What a model makes of pictures of your own.

::

    python -m segdist.predict street.jpg other.png --model runs/unet/train/model.pt --out predictions

Writes ``<picture>_overlay.png`` for each picture: itself under the colours of its classes. It prints which classes
cover how much of it. Torch is loaded after the threads are set, so this module imports it late.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from segdist.cli import parse, run_command
from segdist.config import ConfigError, PathText, check_inference_mode, parse_size, require
from segdist.system.affinity import pin_cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SIDE = 2048
"""A picture without ``--size`` is shown to the net with no side longer than this (pixels)."""


@dataclass(frozen=True)
class PredictConfig:
    """Show what a model makes of pictures of your own: an overlay of its classes for each of them."""

    images: tyro.conf.Positional[tuple[PathText, ...]]
    """Pictures in any format that Pillow reads."""
    model: PathText = ""
    """model.pt or model_int8.torchscript."""
    out: PathText = "predictions"
    """Folder for the overlays; made where it is missing."""
    size: str = ""
    """Size at which the net sees a picture, HEIGHTxWIDTH; empty takes the picture's own, at most 2048 pixels a side."""
    window: str = ""
    """Show the net a window of this size, HEIGHTxWIDTH, that slides over the resized picture."""
    stride: str = ""
    """Steps of the window, down x right in pixels; empty takes two thirds of the window."""
    scales: tuple[float, ...] = (1.0,)
    """Factors on the size; with several, the mean of their probabilities counts."""
    mirror: bool = False
    """Average with the answer to the mirrored picture."""
    opacity: float = 0.55
    """How much of the classes' colours covers the picture, in [0, 1]."""
    label_ids: bool = False
    """Write a PNG of official label ids beside each overlay."""
    threads: int = 0
    """Threads; 0 takes all cores."""

    def __post_init__(self) -> None:
        if self.size:
            parse_size(self.size, "size")
        check_inference_mode(self.window, self.stride, self.scales)
        require(0 <= self.opacity <= 1, f"--opacity {self.opacity}: must be in [0, 1]; give for example 0.55")
        require(self.threads >= 0, f"--threads {self.threads}: must be at least 0; give 0 for all cores")


def predict(config: PredictConfig) -> list[Path]:
    """Write the overlays; returns their files.

    Raises:
        ConfigError: for no picture, two of one name, one that cannot be read, or a model that is none.
    """
    pictures = [Path(name) for name in config.images]
    require(bool(pictures), "IMAGE: no picture was named; give at least one, for example street.jpg")
    require(bool(config.model), '--model "": must name a model; give model.pt or model_int8.torchscript')
    names = [picture.stem for picture in pictures]
    twice = next((name for name in names if names.count(name) > 1), None)
    require(twice is None, f"IMAGE {twice}: two pictures have this name, and so would their overlays; rename one")

    import torch

    from segdist.data.labels import LabelSet
    from segdist.evaluation.cityscapes_export import LabelIdEncoder
    from segdist.evaluation.overlays import blend, encode_png
    from segdist.evaluation.tta import InferenceMode
    from segdist.models.forward import to_input
    from segdist.models.load import load_model_file
    from segdist.run.files import write_atomic

    def covers(ids: NDArray[np.uint8], labels: LabelSet) -> str:
        shares = sorted(((float((ids == index).mean()), name) for index, name in enumerate(labels.classes)))[::-1]
        return ", ".join(f"{name} {100 * share:.0f} %" for share, name in shares if share >= 0.005)

    model = load_model_file(Path(config.model))
    labels = model.info.labels
    mode = InferenceMode.from_config(config, config.size)
    written: list[Path] = []
    for picture in pictures:
        image = read_picture(picture)
        size = mode.size or largest_size(image.shape[0], image.shape[1])
        with torch.inference_mode():
            inputs = to_input(torch.from_numpy(image)[None])
            logits = replace(mode, size=size).predict(model.net, inputs, (image.shape[0], image.shape[1]))
            ids = logits[0].max(0).indices.to(torch.uint8).numpy()
        overlay = encode_png(blend(image, ids, labels, config.opacity))
        files = {Path(config.out) / f"{picture.stem}_overlay.png": overlay}
        if config.label_ids:
            files[Path(config.out) / f"{picture.stem}_labelIds.png"] = LabelIdEncoder(labels).encode_png(ids)
        for path, data in files.items():
            write_atomic(path, data)
            print(f"{path}: {covers(ids, labels)}" if path.stem.endswith("_overlay") else path)
        written += files
    return written


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture as uint8 ``[H, W, 3]``, upright as its camera says; transparency is shown on white.

    Raises:
        ConfigError: naming the file, where it cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits a pixel: convert() would only cut them
                deep = np.asarray(picture, np.float64)
                top = 65535 if deep.max() > 255 else 255
                picture = Image.fromarray((deep * (255 / top)).clip(0, 255).astype(np.uint8))
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
            return np.array(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read as a picture ({reason}); give a JPEG, PNG or the like") from error


def largest_size(height: int, width: int) -> tuple[int, int]:
    """The size itself, or the largest one of its shape with no side above :data:`MAX_SIDE`."""
    factor = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m segdist.predict IMAGE… --model FILE``; returns the exit code."""

    def body() -> None:
        config = parse(PredictConfig, sys.argv[1:] if argv is None else argv, "python -m segdist.predict")
        cores = pin_cores(0, 1, config.threads)

        import torch

        torch.set_num_threads(len(cores))
        predict(config)

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
