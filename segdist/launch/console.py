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


def say(text: str) -> None:
    """A line of the launcher's own on stderr."""
    write_all(STDERR, f"segdist.launch: {text}\n".encode())
