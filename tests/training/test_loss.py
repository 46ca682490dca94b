"""The loss of pixels against its formulas, written out."""

import math

import pytest
import torch

from segdist.data.labels import IGNORE
from segdist.training.loss import PixelCrossEntropy

WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 1.5])


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 4, 6, 8, generator=generator)
    labels = torch.randint(0, 4, (3, 6, 8), generator=generator).to(torch.uint8)
    labels[0, :2] = IGNORE
    return logits, labels


def pixels(logits, labels):
    """(image, log-probabilities, label) of each labelled pixel."""
    for image in range(len(labels)):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                if labels[image, y, x] != IGNORE:
                    yield image, logits[image, :, y, x].double().log_softmax(0), int(labels[image, y, x])


def test_each_pixel_costs_minus_the_log_of_its_probability_times_the_weight_of_its_class(case):
    loss, weight = PixelCrossEntropy(WEIGHTS)(*case)
    assert float(loss) == pytest.approx(sum(float(-WEIGHTS[c] * log[c]) for _, log, c in pixels(*case)), rel=1e-5)
    assert weight == pytest.approx(sum(float(WEIGHTS[c]) for _, _, c in pixels(*case)))


def test_smoothing_gives_a_share_of_the_target_to_every_class(case):
    even, smoothing = torch.ones(4), 0.2
    loss, _ = PixelCrossEntropy(even, smoothing)(*case)
    expected = 0.0
    for _, log, label in pixels(*case):
        target = [smoothing / 4 + (1 - smoothing) * (label == c) for c in range(4)]
        expected -= sum(t * float(log[c]) for c, t in enumerate(target))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("below", "min_kept"), [(0.3, 0.01), (0.05, 0.5), (1.0, 0.1), (0.01, 1.0)])
def test_only_hard_pixels_count_and_of_each_image_at_least_a_share(case, below, min_kept):
    loss, weight = PixelCrossEntropy(WEIGHTS, ohem_thresh=below, min_kept=min_kept)(*case)
    expected = total = 0.0
    for image in range(3):
        own = sorted((math.exp(log[c]), c) for i, log, c in pixels(*case) if i == image)
        least = math.ceil(min_kept * len(own))
        for index, (probability, label) in enumerate(own):
            if probability < below or index < least:
                expected -= float(WEIGHTS[label]) * math.log(probability)
                total += float(WEIGHTS[label])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert weight == pytest.approx(total)


def test_the_choice_of_hard_pixels_does_not_depend_on_the_images_beside(case):
    logits, labels = case
    loss = PixelCrossEntropy(WEIGHTS, ohem_thresh=0.2, min_kept=0.1)
    together = loss(logits, labels)
    alone = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    assert float(together[0]) == pytest.approx(sum(float(part[0]) for part in alone), rel=1e-6)
    assert together[1] == pytest.approx(sum(part[1] for part in alone))


def test_an_image_without_labels_costs_nothing(case):
    logits, labels = case
    for below in (0.0, 0.5):
        loss, weight = PixelCrossEntropy(WEIGHTS, ohem_thresh=below)(logits, torch.full_like(labels, IGNORE))
        assert (float(loss), weight) == (0.0, 0.0)
