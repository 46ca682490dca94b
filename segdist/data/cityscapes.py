"""Cityscapes samples as arrays: whole, or as random training crops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segdist.data.augment import Augment, sample_generator
from segdist.data.labels import LabelSet
from segdist.data.layout import Sample
from segdist.data.png import DataError

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read_png(path: Path, mode: str) -> NDArray[np.uint8]:
    """Decode a PNG: mode "RGB" gives ``[H, W, 3]``, mode "L" ``[H, W]``, both uint8.

    Raises:
        DataError: naming the file, where it is missing, damaged or of another mode.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode != mode:
                raise DataError(
                    f"{path}: has mode {picture.mode}; Cityscapes has 8-bit {mode} here; save it so, its values kept"
                )
            return np.array(picture)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing; copy the data set again") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        if isinstance(error, OSError) and error.errno is not None:  # of the storage: the file may be good
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); mend the storage, or let its owner allow it"
            ) from error
        raise DataError(f"{path}: is damaged ({error}); copy it again") from error


class WholeImages:
    """A split, image by image: ``[i]`` gives the image ``[H, W, 3]`` and its train ids ``[H, W]``, both uint8."""

    def __init__(self, samples: Sequence[Sample], labels: LabelSet) -> None:
        self.samples = samples
        self._table = np.frombuffer(labels.table(), np.uint8)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Arrays:
        return read_png(self.samples[index].image, "RGB"), self.label(index)

    def label(self, index: int) -> NDArray[np.uint8]:
        """The train ids ``[H, W]`` alone."""
        return self._table[read_png(self.samples[index].label, "L")]


class RandomCrops:
    """Training crops: ``[epoch, index]`` gives image ``[h, w, 3]`` and train ids ``[h, w]``, both uint8.

    The epoch is part of the key, so data loader workers hold no state and may be kept over epochs.
    """

    def __init__(self, images: WholeImages, augment: Augment, seed: int) -> None:
        self.images = images
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Arrays:
        epoch, index = key
        image, label = self.images[index]
        return self.augment(image, label, sample_generator(self.seed, epoch, index))
