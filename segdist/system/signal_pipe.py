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

_remembered: list[int] = []
"""Signals that came while no pipe was open, and that the next one is to have."""


def remember_signals(numbers: Sequence[signal.Signals]) -> None:
    """Keep these signals for the next pipe, instead of dying of one that comes before it. Main thread only.

    Whoever started this process may have held them back from its first moment on; now they come.
    """
    for number in numbers:
        signal.signal(number, _remember)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def keep_over_exec(numbers: Sequence[signal.Signals]) -> None:
    """Hold these signals back from here on, those that were remembered too: a program that this process becomes
    (``exec``) finds them where it remembers signals itself. With no other thread about, which could take them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in {one for one in _remembered if one in numbers}:
        signal.raise_signal(number)


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
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        unread = _drain(reader)
        for number, handler in handlers.items():
            signal.signal(number, handler)
            if handler is _remember:
                _remembered.extend(one for one in unread if one == number)
        os.close(signal.set_wakeup_fd(earlier))
        os.close(reader)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _drain(reader: int) -> bytes:
    """What came since the pipe was last read."""
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 4096)
    except BlockingIOError:
        return b""


def _redirect(numbers: Sequence[signal.Signals]) -> tuple[int, int]:
    """The pipe's reading end, and the descriptor that signals were written to before (-1 for none).

    Signals are held back meanwhile: each comes either before, and is remembered, or after, and is written. Whoever
    started this process may have held them back from its first moment on; now they come.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _written_by_the_interpreter)
    waiting = {number for number in _remembered if number in numbers}
    _remembered[:] = [number for number in _remembered if number not in numbers]
    os.write(writer, bytes(sorted(waiting)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return reader, earlier


def _remember(number: int, frame: FrameType | None) -> None:
    _remembered.append(number)


def _written_by_the_interpreter(number: int, frame: FrameType | None) -> None:
    """A handler has to be there for the pipe to be written to."""
