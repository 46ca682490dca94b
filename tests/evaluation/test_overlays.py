"""Which images are shown, and what their pictures say."""

import math

import numpy as np
import pytest

from segdist.data.labels import load_label_set
from segdist.evaluation.overlays import RIGHT, UNCOUNTED, WRONG, blend, choose_overlay_images, error_map

SCORES = {0: 0.5, 1: 0.1, 2: 0.9, 3: math.nan, 4: 0.3, 5: 0.7, 6: 0.2}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (0, []),
        (1, [("worst", 1)]),
        (2, [("worst", 1), ("best", 2)]),
        (3, [("worst", 1), ("median", 4), ("best", 2)]),
        (6, [("worst", 1), ("worst", 6), ("median", 4), ("median", 0), ("best", 2), ("best", 5)]),
        (9, [("worst", 1), ("worst", 6), ("median", 4), ("median", 0), ("best", 2), ("best", 5)]),
    ],
)
def test_the_worst_median_and_best_by_miou(wanted, found):
    assert [(one.role, one.index) for one in choose_overlay_images(SCORES, wanted)] == found


@pytest.mark.parametrize("images", range(1, 12))
@pytest.mark.parametrize("wanted", range(9))
def test_no_image_is_shown_twice(images, wanted):
    chosen = choose_overlay_images({index: index / 20 for index in range(images)}, wanted)
    assert len({one.index for one in chosen}) == len(chosen) == min(images, wanted)


def test_errors_are_dark_and_what_does_not_count_is_grey():
    truth, prediction = np.array([[0, 1, 255]], np.uint8), np.array([[0, 2, 2]], np.uint8)
    picture = error_map(truth, prediction).convert("RGB")
    assert [picture.getpixel((x, 0)) for x in range(3)] == [RIGHT, WRONG, UNCOUNTED]
    grey = [picture.convert("L").getpixel((x, 0)) for x in range(3)]
    assert grey[1] + 80 < grey[2] < grey[0] - 40  # told apart in black and white


def test_an_overlay_is_the_picture_under_the_colours():
    labels = load_label_set("cityscapes19")
    image = np.full((1, 2, 3), 200, np.uint8)
    ids = np.array([[0, 13]], np.uint8)
    assert blend(image, ids, labels, 0.0).getpixel((1, 0)) == (200, 200, 200)
    assert blend(image, ids, labels, 1.0).getpixel((1, 0)) == labels.colors[13]
