"""Signals as bytes in a pipe: who reads it is told at once, and no work is done inside a signal handler.

The interpreter itself writes the number of each signal that arrives (``signal.set_wakeup_fd``), also while the main
thread waits inside native code. A handler must be there for that; it does nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from types import FrameType


def open_signal_pipe(numbers: Sequence[signal.Signals]) -> int:
    """Have these signals written to a pipe, for as long as the process lives; its reading end. Main thread only."""
    return _redirect(numbers)[0]


@contextlib.contextmanager
def signal_pipe(numbers: Sequence[signal.Signals]) -> Iterator[int]:
    """Have these signals written to a pipe while in the block; its reading end. Main thread only."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    reader, earlier = _redirect(numbers)
    try:
        yield reader
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(signal.set_wakeup_fd(earlier))
        os.close(reader)


def _redirect(numbers: Sequence[signal.Signals]) -> tuple[int, int]:
    """The pipe's reading end, and the descriptor that signals were written to before (-1 for none)."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _written_by_the_interpreter)
    return reader, earlier


def _written_by_the_interpreter(number: int, frame: FrameType | None) -> None:
    """A handler has to be there for the pipe to be written to."""
