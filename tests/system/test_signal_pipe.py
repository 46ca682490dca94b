"""Signals arrive as bytes in a pipe, and all is as before when the block has ended."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from segdist.system.signal_pipe import remember_signals, signal_pipe

NUMBERS = (signal.SIGUSR1, signal.SIGUSR2)


def test_each_signal_is_a_byte_in_the_pipe() -> None:
    with signal_pipe(NUMBERS) as reader:
        for number in NUMBERS:
            os.kill(os.getpid(), number)
            assert select.select([reader], [], [], 10)[0]
            assert os.read(reader, 16) == bytes([number])


def test_handlers_descriptors_and_an_outer_pipe_are_as_before_after_the_block() -> None:
    handlers = [signal.getsignal(number) for number in NUMBERS]
    with signal_pipe(NUMBERS) as outer:
        descriptors = sorted(Path("/proc/self/fd").iterdir())
        with signal_pipe(NUMBERS):
            pass
        assert sorted(Path("/proc/self/fd").iterdir()) == descriptors
        os.kill(os.getpid(), signal.SIGUSR1)
        assert select.select([outer], [], [], 10)[0]
    assert [signal.getsignal(number) for number in NUMBERS] == handlers
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_before_the_pipe_and_one_between_two_pipes_are_in_the_next() -> None:
    handlers = [signal.getsignal(number) for number in NUMBERS]
    try:
        remember_signals(NUMBERS)
        os.kill(os.getpid(), signal.SIGUSR1)
        with signal_pipe(NUMBERS) as reader:
            assert os.read(reader, 16) == bytes([signal.SIGUSR1])
            os.kill(os.getpid(), signal.SIGUSR2)  # nobody reads it in this block
        with signal_pipe(NUMBERS) as reader:
            assert os.read(reader, 16) == bytes([signal.SIGUSR2])
        with signal_pipe(NUMBERS) as reader:
            assert not select.select([reader], [], [], 0)[0]
    finally:
        for number, handler in zip(NUMBERS, handlers):
            signal.signal(number, handler)


def test_a_signal_that_was_held_back_from_the_start_comes_with_the_pipe() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    signal.raise_signal(signal.SIGUSR1)  # to this thread: another one of the tests' process may not hold it back
    with signal_pipe(NUMBERS) as reader:
        assert select.select([reader], [], [], 10)[0]
        assert os.read(reader, 16) == bytes([signal.SIGUSR1])


def test_a_signal_before_an_exec_is_there_behind_it() -> None:
    after = """
import os, signal
from segdist.system.signal_pipe import remember_signals, signal_pipe
remember_signals((signal.SIGUSR1,))
with signal_pipe((signal.SIGUSR1,)) as reader:
    os.set_blocking(reader, False)
    print(list(os.read(reader, 16)))
"""
    before = f"""
import os, signal, sys
from segdist.system.signal_pipe import keep_over_exec, remember_signals
remember_signals((signal.SIGUSR1,))
os.kill(os.getpid(), signal.SIGUSR1)
keep_over_exec((signal.SIGUSR1,))
os.execv(sys.executable, [sys.executable, "-c", {after!r}])
"""
    done = subprocess.run([sys.executable, "-c", before], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, f"[{int(signal.SIGUSR1)}]\n"), done.stderr
