"""Copies that the training cannot change any more, and a thread that writes them."""

import os
import threading

import pytest
import torch

from segdist.training.async_writer import NICENESS, AsyncWriter, Snapshot


def test_a_copy_is_not_changed_by_what_the_training_does_next():
    weight = torch.zeros(2, 3)
    state = {"step": 1, "weights": {"a": weight}, "list": [weight, ("x", weight)], "none": None}
    copied = Snapshot().take(state)
    weight.fill_(7)
    assert torch.equal(copied["weights"]["a"], torch.zeros(2, 3))
    assert torch.equal(copied["list"][0], torch.zeros(2, 3))
    assert (copied["step"], copied["none"], copied["list"][1][0]) == (1, None, "x")


def test_the_layout_in_memory_is_kept_and_the_memory_is_used_again():
    snapshot, image = Snapshot(), torch.rand(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    first = snapshot.take([image])[0]
    assert first.stride() == image.stride()
    second = snapshot.take([image + 1])[0]
    assert second.data_ptr() == first.data_ptr()
    assert torch.equal(second, image + 1)
    other = snapshot.take([torch.zeros(5)])[0]
    assert other.shape == (5,)


def test_the_work_is_done_beside_at_a_lower_priority():
    writer, go, seen = AsyncWriter(), threading.Event(), []

    def work():
        go.wait()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    writer.start(work)
    assert seen == []
    go.set()
    writer.wait()
    assert seen == [min(before + NICENESS, 19)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert len(writer.seconds) == 1
    assert not writer.failed


def test_where_the_priority_cannot_be_changed_the_work_is_done_all_the_same(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    writer, done = AsyncWriter(), []
    writer.start(lambda: done.append(1))
    writer.wait()
    assert done == [1]


def test_an_error_is_known_at_once_and_raised_once_to_who_waits():
    writer = AsyncWriter()

    def work():
        raise OSError(28, "No space left on device")

    writer.start(work)
    writer.join()
    assert writer.failed
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert not writer.failed
    writer.wait()
