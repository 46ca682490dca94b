"""The launcher's own output: past Python's buffers, also where nobody reads it any more or its disk is full."""

from __future__ import annotations

from pathlib import Path

from segdist.system.output import STDERR, STDOUT, write_some


def write_all(descriptor: int, data: bytes) -> OSError | None:
    """Write all of ``data``, past Python's buffers; the error where that cannot be, as the reader has gone, say."""
    view = memoryview(data)
    try:
        while view:
            view = view[write_some(descriptor, view) :]
    except OSError as error:
        return error
    return None


def log_line(text: str) -> None:
    """A line of the launcher's own on stderr."""
    write_all(STDERR, f"segdist.launch: {text}\n".encode(errors="replace"))


class Rank0Output:
    """What rank 0 writes, on the launcher's stdout, for as long as that takes it."""

    def __init__(self) -> None:
        self._is_shown = True

    def show(self, data: bytes) -> None:
        """Write to stdout; once that refuses it, say so and show nothing more."""
        refused = write_all(STDOUT, data) if self._is_shown else None
        if isinstance(refused, BrokenPipeError):
            log_line("nobody reads the output any more; rank 0 goes on, and its log has the rest")
        elif refused is not None:
            log_line(f"the output cannot be written ({refused.strerror}); rank 0 goes on, and its log has the rest")
        self._is_shown = self._is_shown and refused is None


class RankLog:
    """The log of a rank whose output comes through a pipe: what the storage refuses is left out, and that is said."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.descriptor = descriptor
        self._path = path
        self._said = False

    def write(self, data: bytes) -> None:
        """Write at the log's end."""
        refused = write_all(self.descriptor, data)
        if refused is not None and not self._said:
            self._said = True
            log_line(f"{self._path}: cannot be written ({refused.strerror}); the rank goes on, its output is lost")
