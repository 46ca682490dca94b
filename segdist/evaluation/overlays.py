"""Pictures of what a net saw, what is there, what it said, and where it was wrong."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segdist.data.labels import IGNORE, LabelSet
from segdist.run.files import write_atomic

Role = Literal["worst", "median", "best"]
ROLES: tuple[Role, ...] = ("worst", "median", "best")
RIGHT, WRONG, UNCOUNTED = (244, 244, 244), (176, 16, 32), (190, 190, 190)
"""Colours of the error map: light where right, dark red where wrong, grey where no class is to be found; as different
in black and white."""


@dataclass(frozen=True)
class OverlayImage:
    """An image of which overlays are written, and why; ``miou`` in [0, 1]."""

    index: int
    role: Role
    miou: float


def choose_overlay_images(scores: Mapping[int, float], count: int) -> list[OverlayImage]:
    """The worst, median and best images by mIoU, a third of ``count`` each (the worst have what is left over).

    Args:
        scores: mIoU by index; an image without one (NaN) is not chosen.
        count: how many; all where there are fewer.
    """
    order = sorted((score, index) for index, score in scores.items() if not math.isnan(score))
    count = min(count, len(order))
    best, median = (count + 1) // 3, count // 3
    worst = count - best - median
    middle = min(max((len(order) - median) // 2, worst), len(order) - best - median)
    parts: list[tuple[Role, list[tuple[float, int]]]] = [
        ("worst", order[:worst]),
        ("median", order[middle : middle + median]),
        ("best", order[len(order) - best :][::-1]),
    ]
    return [OverlayImage(index, role, score) for role, part in parts for score, index in part]


def write_overlay(
    folder: Path,
    stem: str,
    image: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    labels: LabelSet,
) -> None:
    """Write ``<stem>_image.png``, ``_truth.png``, ``_prediction.png`` and ``_error.png``, all of one size.

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
        "truth": label_image(truth, labels),
        "prediction": label_image(prediction, labels),
        "error": error_map(truth, prediction),
    }
    for kind, picture in pictures.items():
        write_atomic(folder / f"{stem}_{kind}.png", encode_png(picture))


def encode_png(picture: Image.Image) -> bytes:
    """The picture as a small PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def label_image(ids: NDArray[np.uint8], labels: LabelSet) -> Image.Image:
    """Train ids, uint8 ``[H, W]``, in the colours of their classes; a palette picture."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(labels)] = labels.colors
    palette[IGNORE] = 0
    return _with_palette(ids, palette)


def error_map(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Image.Image:
    """Where a prediction is right, wrong, and not counted, from train ids, uint8 ``[H, W]``; a palette picture."""
    kinds = np.where(truth == IGNORE, 2, truth != prediction).astype(np.uint8)
    return _with_palette(kinds, np.array([RIGHT, WRONG, UNCOUNTED], np.uint8))


def _with_palette(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(indices, "P")
    picture.putpalette(palette.tobytes())
    return picture


def blend(image: NDArray[np.uint8], ids: NDArray[np.uint8], labels: LabelSet, opacity: float) -> Image.Image:
    """A picture under the colours of its classes.

    Args:
        image: uint8 ``[H, W, 3]``.
        ids: class indices, uint8 ``[H, W]``.
        labels: gives the colours.
        opacity: of the colours, in [0, 1].
    """
    return Image.blend(Image.fromarray(image), label_image(ids, labels).convert("RGB"), opacity)
