"""The peak is the kernel's, and can be reset where the kernel allows it."""

import subprocess
import sys
from pathlib import Path

import pytest

from segdist.system.memory import peak_memory_mb, reset_peak_memory


def test_the_peak_counts_what_was_taken_and_given_back():
    # In a process of its own: the peak of this one may be anything already.
    code = (
        "from segdist.system.memory import peak_memory_mb\n"
        "before = peak_memory_mb(); block = bytearray(b'x' * 200_000_000); del block\n"
        "print(before, peak_memory_mb())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert 0 < before < 100
    assert before + 190 < after < before + 500, "the block, and a copy of it while it is made"


def test_the_unit_is_a_million_bytes():
    assert peak_memory_mb(lambda _: "Name:\tpython\nVmHWM:\t  250000 kB\nVmRSS:\t  1 kB\n") == 256.0


def test_the_peak_can_be_reset():
    if not reset_peak_memory():
        pytest.skip("the kernel does not let this process clear its peak")
    low = peak_memory_mb()
    block = bytearray(b"x" * 300_000_000)
    assert peak_memory_mb() > low + 250
    del block
    assert reset_peak_memory()
    assert peak_memory_mb() < low + 200


def test_a_kernel_that_refuses_is_said_so():
    assert not reset_peak_memory(Path("/proc/self/no/such/file"))


def test_a_status_without_a_peak_is_an_error():
    with pytest.raises(OSError, match="has no VmHWM"):
        peak_memory_mb(lambda _: "Name: python\n")
