"""The peak is the kernel's, and can be forgotten where the kernel allows it."""

from pathlib import Path

import pytest

from segdist.system.memory import forget_peak, peak_mb


def test_the_peak_counts_what_was_taken_and_given_back():
    before = peak_mb()
    block = bytearray(b"x" * 200_000_000)
    del block
    assert peak_mb() >= before
    assert peak_mb() > 200


def test_the_peak_can_be_forgotten():
    if not forget_peak():
        pytest.skip("the kernel does not let this process clear its peak")
    low = peak_mb()
    block = bytearray(b"x" * 300_000_000)
    assert peak_mb() > low + 250
    del block
    assert forget_peak()
    assert peak_mb() < low + 200


def test_a_kernel_that_refuses_is_said_so():
    assert not forget_peak(Path("/proc/self/no/such/file"))


def test_a_status_without_a_peak_is_an_error():
    with pytest.raises(OSError, match="has no VmHWM"):
        peak_mb(lambda _: "Name: python\n")
