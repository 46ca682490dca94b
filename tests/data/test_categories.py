"""Categories against the official table, and label sets that have none."""

from cityscapesscripts.helpers.labels import category2labels

from segdist.data.categories import CATEGORIES, categories_of
from segdist.data.labels import LabelSet, load_label_set


def test_they_are_the_official_ones():
    official = {
        name: tuple(label.name for label in labels if not label.ignoreInEval)
        for name, labels in category2labels.items()
    }
    assert {name: members for name, members in official.items() if members} == dict(CATEGORIES)


def test_classes_are_found_in_their_category():
    found = categories_of(load_label_set("street13"))
    assert found["construction"] == [2]
    assert found["vehicle"] == [10, 11, 12]
    assert sorted(index for ids in found.values() for index in ids) == list(range(13))


def test_a_class_of_two_categories_leaves_none_exact():
    mixed = LabelSet("mixed", ("moving", "sky"), ((0, 0, 0), (1, 1, 1)), (("car", "person"), ("sky",)))
    assert categories_of(mixed) is None
