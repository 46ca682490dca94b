"""Loading ahead keeps the order, loads one item ahead and no more, and raises where the item is due."""

import threading

import pytest

from segdist.data.prefetch import prefetch


def test_items_come_in_order_and_the_next_one_is_loaded_meanwhile():
    loaded = {index: threading.Event() for index in range(4)}

    def load(index):
        loaded[index].set()
        return index * 10

    for index, item in prefetch(load, range(4)):
        assert item == index * 10
        if index < 3:
            assert loaded[index + 1].wait(10)  # without being asked for
        if index < 2:
            assert not loaded[index + 2].is_set()  # and no further


def test_nothing_to_load_gives_nothing():
    assert list(prefetch(lambda index: index, [])) == []


def test_an_error_comes_when_its_item_is_due():
    items = prefetch(lambda index: 1 // index, [1, 0])
    assert next(items) == (1, 1)
    with pytest.raises(ZeroDivisionError):
        next(items)
