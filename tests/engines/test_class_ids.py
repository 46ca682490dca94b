"""Lazy class ids against plain interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segdist.engines.class_ids import lazy_class_ids


def interpolated(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    wide = F.interpolate(torch.from_numpy(logits)[None].double(), size=size, mode="bilinear", align_corners=False)
    return wide[0].numpy()


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 19), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4]), st.integers(0, 3),
    st.integers(0, 3), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_every_pixel_has_the_greatest_of_the_interpolated_logits(
    classes: int, h: int, w: int, factor: int, less_h: int, less_w: int, tied: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    logits = random.integers(-2, 3, (classes, h, w)) if tied else random.normal(size=(classes, h, w))
    logits = logits.astype(np.float32)
    size = (max(h, h * factor - less_h), max(w, w * factor - less_w))
    ids = lazy_class_ids(logits, size)
    plain = interpolated(logits, size)
    assert ids.shape == size
    chosen = np.take_along_axis(plain, ids[None].astype(np.int64), 0)[0]
    assert (plain.max(0) - chosen).max() <= 1e-5
    clear = np.sort(plain, 0)[-1] - np.sort(plain, 0)[-2] > 1e-5 if classes > 1 else np.ones(size, bool)
    assert (ids == plain.argmax(0))[clear].all()


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 19), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1))
def test_of_equal_logits_the_first_class_counts(classes: int, h: int, w: int, factor: int, seed: int) -> None:
    """Whole numbers and weights of eighths: what is equal is equal in floating point, too."""
    logits = np.random.default_rng(seed).integers(-2, 3, (classes, h, w)).astype(np.float32)
    size = (h * factor, w * factor)
    assert (lazy_class_ids(logits, size) == interpolated(logits, size).argmax(0)).all()


def test_an_infinite_logit_leaves_no_cell_to_be_guessed() -> None:
    """All four corners of every cell choose class 0; between 0 and infinity nothing else may be chosen either."""
    logits = np.zeros((2, 4, 4), np.float32)
    logits[1] = -1
    logits[1, 1, 1] = -np.inf
    plain = interpolated(logits, (16, 16))
    numbers = ~np.isnan(plain).any(0)
    assert numbers.any()
    assert (lazy_class_ids(logits, (16, 16)) == plain.argmax(0))[numbers].all()


def test_logits_finer_than_the_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="not smaller"):
        lazy_class_ids(np.zeros((2, 8, 8), np.float32), (4, 8))
