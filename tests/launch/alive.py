"""A FIFO that every rank of a launch holds open: a line in it says that a rank has come to some point, its end of file
that every process of the launch is gone."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path


class AlivePipe:
    """The reading end of the FIFO ``alive`` in a folder.

    Args:
        deadline: seconds after which something that should have happened counts as not happening.
    """

    def __init__(self, folder: Path, deadline: float) -> None:
        self._deadline = deadline
        path = folder / "alive"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._held = [os.open(path, os.O_WRONLY)]  # no end of file between one rank and the next
        self._lines = b""

    def _read(self, until: float) -> bytes:
        assert select.select([self._reader], [], [], max(0.0, until - time.monotonic()))[0], (
            f"nothing happened within {self._deadline} s; so far: {self._lines!r}"
        )
        return os.read(self._reader, 4096)

    def wait_for_lines(self, count: int) -> list[str]:
        """Wait until the ranks have sent ``count`` lines in all; they are returned sorted."""
        until = time.monotonic() + self._deadline
        while self._lines.count(b"\n") < count:
            self._lines += self._read(until)
        return sorted(self._lines.decode().splitlines())

    def wait_until_nobody_lives(self) -> None:
        """Wait until no process has the FIFO open any more."""
        while self._held:
            os.close(self._held.pop())
        until = time.monotonic() + self._deadline
        while data := self._read(until):
            self._lines += data

    def close(self) -> None:
        """Close both ends."""
        for descriptor in (self._reader, *self._held):
            os.close(descriptor)
