"""Standard output and error of which no command dies: closed, full, or of an encoding that lacks a character.

Only the standard library is imported here: every command begins with it, the agent of a node too.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any, TextIO

STDIN, STDOUT, STDERR = 0, 1, 2
OUTPUT_NAME = "standard output"
"""What an error of stdout names as its file."""


def prepare_output(lasting: bool = True, encoding: str | None = None) -> None:
    """Make stdout and stderr fit for what is to come; to be called before a file is opened.

    What their encoding lacks is replaced. Descriptors that are closed are opened on /dev/null: the next file would
    get their numbers, and what is printed with them. Streams that a test has put there are left alone.

    Args:
        lasting: whether the command's work goes on where stdout cannot be written (said once on stderr); else that
            is an OSError, for commands whose output is what they are for. Nothing ends for stderr's sake.
        encoding: of output that is no terminal: that of logs, which are read as UTF-8; the locale's by default.
    """
    closed = [number for number in (STDIN, STDOUT, STDERR) if not _is_open(number)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _stream(sys.stdout, STDOUT, lasting, encoding)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _stream(sys.stderr, STDERR, True, encoding)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stream(stream: TextIO | None, descriptor: int, lasting: bool, encoding: str | None) -> TextIO:
    if stream is not None:
        stream.flush()
    own = stream if isinstance(stream, io.TextIOWrapper) else None
    terminal = os.isatty(descriptor)
    if own is None or terminal or encoding is None:
        encoding = own.encoding if own is not None else "utf-8"
    errors = "backslashreplace" if descriptor == STDERR else "replace"
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, lasting)),
        encoding=encoding,
        errors=errors,
        line_buffering=terminal or descriptor == STDERR,
        write_through=own is not None and own.write_through,
    )


class _Output(io.RawIOBase):
    """A descriptor that is written to. Where it is lasting, what it refuses is lost, and that is said once."""

    def __init__(self, descriptor: int, lasting: bool) -> None:
        self._descriptor = descriptor
        self._lasting = lasting
        self._said = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        try:
            return write_some(self._descriptor, data)
        except OSError as error:
            if not self._lasting:
                raise OSError(error.errno, error.strerror, OUTPUT_NAME) from error
            self._say(error)
            return len(data)

    def _say(self, error: OSError) -> None:
        if not self._said and self._descriptor == STDOUT:
            self._said = True
            text = f"warning: {OUTPUT_NAME} cannot be written ({error.strerror}); the work goes on without"
            print(text, file=sys.stderr, flush=True)


def write_some(descriptor: int, data: Any) -> int:
    """Write some of the data, waiting for a pipe that is full also where it does not block; returns how much."""
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            select.select([], [descriptor], [])
