"""Pictures of what a net saw, what is there, and what it said."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segdist.data.labels import IGNORE, LabelSet
from segdist.results import write_atomic


def write_overlay(
    folder: Path,
    stem: str,
    image: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    labels: LabelSet,
) -> None:
    """Write ``<stem>_image.png``, ``_truth.png`` and ``_prediction.png``, all of one size.

    Args:
        folder: where to; made where it is missing.
        stem: the image's name.
        image: uint8 ``[H, W, 3]``.
        truth: train ids, uint8 ``[H, W]``; what is ignored is black.
        prediction: train ids, uint8 ``[H, W]``.
        labels: gives the colours.
    """
    pictures = {
        "image": Image.fromarray(image),
        "truth": label_picture(truth, labels),
        "prediction": label_picture(prediction, labels),
    }
    for kind, picture in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        write_atomic(folder / f"{stem}_{kind}.png", buffer.getvalue())


def label_picture(ids: NDArray[np.uint8], labels: LabelSet) -> Image.Image:
    """Train ids, uint8 ``[H, W]``, in the colours of their classes; a palette picture."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(labels)] = labels.colors
    palette[IGNORE] = 0
    picture = Image.fromarray(ids, "P")
    picture.putpalette(palette.tobytes())
    return picture


def spread(total: int, wanted: int) -> list[int]:
    """``wanted`` indices spread evenly over ``total``, the first one among them; all where there are fewer."""
    count = min(total, wanted)
    return [position * total // count for position in range(count)] if count else []
