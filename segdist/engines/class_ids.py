"""The class of each pixel from coarse logits, exactly and lazily, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Ids = NDArray[np.uint8]
CHUNK = 2048
"""Columns that are looked at at a time: so few that they stay in the cache."""


def lazy_class_ids(logits: Logits, size: tuple[int, int]) -> Ids:
    """The class with the greatest logit after bilinear upsampling, the first of equal ones.

    Interpolation is a convex combination: where the four corners of a coarse cell share their best class, it is the
    best everywhere inside. Only the other cells are interpolated. (Two classes that interpolation would make equal by
    rounding alone may be told apart here, and where interpolation gives no
    number, no class is promised.) Corners lie as ``F.interpolate(align_corners=False)`` has them.

    Args:
        logits: float32 ``[classes, h, w]``, at most 256 classes.
        size: height and width of the result, not smaller than the logits'.

    Returns:
        uint8 ``[*size]``.

    Raises:
        ValueError: for too many classes, or a size smaller than the logits'.
    """
    classes, height, width = logits.shape
    if classes > 256 or size[0] < height or size[1] < width:
        raise ValueError(f"logits {logits.shape} and size {size}: at most 256 classes, and a size that is not smaller")
    flat = np.ascontiguousarray(logits).reshape(classes, -1)
    coarse = _best(flat).reshape(height, width)
    if (height, width) == size:
        return coarse
    (top, bottom, down), (left, right, across) = _corners(height, size[0]), _corners(width, size[1])
    rows, columns = np.minimum(np.arange(height) + 1, height - 1), np.minimum(np.arange(width) + 1, width - 1)
    lower = coarse[rows]
    mixed = (coarse != lower) | (coarse != coarse[:, columns]) | (coarse != lower[:, columns])
    if not np.isfinite(flat).all():  # 0 · ∞ is not a number: nothing is known of the inside of a cell
        mixed[:] = True
    ids = coarse[top][:, left]
    ys, xs = np.nonzero(mixed[top][:, left])
    for begin in range(0, len(ys), CHUNK):
        y, x = ys[begin : begin + CHUNK], xs[begin : begin + CHUNK]
        upper_row, lower_row, wx, wy = top[y] * width, bottom[y] * width, across[x], down[y]
        with np.errstate(invalid="ignore"):
            above = flat[:, upper_row + left[x]] * (1 - wx) + flat[:, upper_row + right[x]] * wx
            below = flat[:, lower_row + left[x]] * (1 - wx) + flat[:, lower_row + right[x]] * wx
            ids[y, x] = _best(above * (1 - wy) + below * wy)
    return ids


def _corners(coarse: int, fine: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Logits]:
    """For each fine pixel of one side: the coarse ones before and after it, and the weight of the latter."""
    source = np.maximum((np.arange(fine) + 0.5) * (coarse / fine) - 0.5, 0)
    before = np.minimum(np.floor(source).astype(np.intp), coarse - 1)
    return before, np.minimum(before + 1, coarse - 1), (source - before).astype(np.float32)


def _best(values: Logits) -> Ids:
    """The row of the greatest value of each column, the first of equal ones: float32 ``[rows, n]`` → uint8 ``[n]``."""
    best = np.zeros(values.shape[1], np.uint8)
    for begin in range(0, values.shape[1], CHUNK):
        part, ids = values[:, begin : begin + CHUNK], best[begin : begin + CHUNK]
        greatest = part[0].copy()
        for row in range(1, len(part)):  # np.argmax over the first axis takes several times as long
            greater = part[row] > greatest
            np.maximum(ids, greater.view(np.uint8) * np.uint8(row), out=ids)
            np.maximum(greatest, part[row], out=greatest)
    return best
