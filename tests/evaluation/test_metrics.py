"""Scores against counts by hand, and the rule for absent classes."""

import math

import numpy as np
import pytest
import torch

from segdist.evaluation.metrics import ConfusionMatrix


def confusion_of(truth, prediction, classes):
    confusion = ConfusionMatrix(classes)
    confusion.update(torch.tensor(truth, dtype=torch.uint8), torch.tensor(prediction, dtype=torch.uint8))
    return confusion


def test_by_hand():
    confusion = confusion_of([0, 0, 0, 1, 1, 255], [0, 0, 1, 1, 0, 1], 2)
    assert confusion.matrix.tolist() == [[2, 1], [1, 1]]
    assert confusion.pixel_accuracy() == 3 / 5
    assert confusion.iou() == [2 / 4, 1 / 3]
    assert confusion.miou() == (2 / 4 + 1 / 3) / 2


def test_a_class_neither_there_nor_predicted_is_skipped_and_one_predicted_wrongly_counts_0():
    absent = confusion_of([0, 1], [0, 1], 3)
    assert math.isnan(absent.iou()[2])
    assert absent.miou() == 1
    assert absent.scores("abc")["iou_pct"] == {"a": 100, "b": 100, "c": None}
    assert confusion_of([0, 1], [0, 2], 3).iou() == [1, 0, 0]


def test_the_other_rules_for_absent_classes():
    confusion = confusion_of([0, 1], [0, 1], 4)
    assert [confusion.miou(rule) for rule in ("skip", "zero")] == [1, 0.5]
    assert math.isnan(confusion.miou("nan"))
    assert confusion_of([0, 1], [0, 1], 2).miou("nan") == 1


def test_categories_are_counted_by_their_classes_together():
    confusion = confusion_of([0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 2, 2], 3)
    scores = confusion.scores("abc", categories={"ab": [0, 1], "c": [2]})
    assert scores["category_iou_pct"] == {"ab": 75.0, "c": 66.6667}
    assert scores["category_miou_pct"] == 70.8333


def test_a_train_id_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="train id 7: must be below 3, or 255"):
        confusion_of([0, 7], [0, 0], 3)


def test_nothing_counted_is_no_number():
    empty = confusion_of([255], [0], 2)
    assert math.isnan(empty.miou())
    assert empty.scores("ab") == {
        "miou_pct": None,
        "pixel_accuracy_pct": None,
        "iou_pct": {"a": None, "b": None},
    }


def test_against_a_count_by_sets():
    draw = np.random.default_rng(0)
    truth, prediction = draw.integers(0, 5, (2, 40, 50))
    truth[draw.random((40, 50)) < 0.1] = 255
    confusion = ConfusionMatrix(5)
    for row in range(40):  # in pieces: integers add up exactly
        confusion.update(torch.tensor(truth[row]), torch.tensor(prediction[row]))
    counted = truth != 255
    for index, iou in enumerate(confusion.iou()):
        both = (truth == index) & (prediction == index)
        either = ((truth == index) | (prediction == index)) & counted
        assert iou == both.sum() / either.sum()
    assert confusion.pixel_accuracy() == (truth == prediction)[counted].mean()
