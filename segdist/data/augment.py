"""Random zoom, crop and mirror of one image and its label.

Every draw depends on (seed, epoch, sample index) only: neither the number of workers nor of ranks changes a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segdist.data.labels import IGNORE

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation per channel, on pixel values in [0, 1]."""
FILL = tuple(round(255 * mean) for mean in MEAN)
"""Colour of what lies outside the image: zero after normalization."""


@dataclass(frozen=True)
class Augment:
    """Crop ``size`` (height, width) at a zoom drawn log-uniformly from ``scale``, mirrored half of the time."""

    size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True

    def __call__(
        self, image: NDArray[np.uint8], label: NDArray[np.uint8], draw: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """One random crop.

        Args:
            image: ``[H, W, 3]`` uint8.
            label: ``[H, W]`` uint8 train ids.
            draw: source of the random numbers.

        Returns:
            the crop's image ``[*size, 3]`` and label ``[*size]``; where the zoomed image is smaller than the crop, the
            rest is filled with the mean colour and :data:`IGNORE`.
        """
        low, high = np.log(self.scale)
        zoom = float(np.exp(draw.uniform(low, high)))
        top, bottom, y, height = _span(image.shape[0], self.size[0], zoom, draw)
        left, right, x, width = _span(image.shape[1], self.size[1], zoom, draw)
        mirror = self.flip and bool(draw.integers(2))
        box = (left, top, right, bottom)
        image_part = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box)
        label_part = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST, box=box)
        image_crop = np.empty((*self.size, 3), np.uint8)
        image_crop[:] = FILL
        label_crop = np.full(self.size, IGNORE, np.uint8)
        image_crop[y : y + height, x : x + width] = np.asarray(image_part)
        label_crop[y : y + height, x : x + width] = np.asarray(label_part)
        if mirror:
            image_crop, label_crop = image_crop[:, ::-1], label_crop[:, ::-1]
        return np.ascontiguousarray(image_crop), np.ascontiguousarray(label_crop)


def _span(have: int, want: int, zoom: float, draw: np.random.Generator) -> tuple[float, float, int, int]:
    """Along one side: which part of the image is taken (start, end), and where in the crop it goes (offset, length)."""
    needed = want / zoom
    position = draw.uniform()
    if needed <= have:
        start = position * (have - needed)
        return start, start + needed, 0, want
    length = max(1, min(want, round(have * zoom)))
    return 0.0, float(have), int(position * (want - length + 1)), length


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch."""
    return np.random.default_rng([seed, epoch, index])
