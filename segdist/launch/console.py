"""The launcher's own output: past Python's buffers, also where nobody reads it any more."""

from __future__ import annotations

import os

STDOUT, STDERR = 1, 2


def write_all(descriptor: int, data: bytes) -> bool:
    """Write all of ``data``, past Python's buffers; False where the reader has gone."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except BrokenPipeError:
        return False
    return True


def log_line(text: str) -> None:
    """A line of the launcher's own on stderr."""
    write_all(STDERR, f"segdist.launch: {text}\n".encode())


class Rank0Output:
    """What rank 0 writes, on the launcher's stdout, for as long as somebody reads that."""

    def __init__(self) -> None:
        self._has_reader = True

    def show(self, data: bytes) -> None:
        """Write to stdout; once its reader has gone, say so and show nothing more."""
        if self._has_reader and not write_all(STDOUT, data):
            self._has_reader = False
            log_line("nobody reads the output any more; rank 0 goes on, and its log has the rest")
