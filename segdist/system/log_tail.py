"""The end of a log file: what has been added since the last look, and its last lines."""

from __future__ import annotations

import os
from pathlib import Path


class LogTail:
    """A log that another process writes, read as it grows.

    The file is opened anew for each look: on a network file system that is what shows what another node has written
    (close-to-open consistency, nfs(5)).
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0

    def read_new(self, whole_lines: bool = False) -> bytes:
        """The bytes added since the last call; none where there is no file yet. A file that got shorter begins anew.

        Args:
            whole_lines: leave an unfinished last line for the next call, unless there is nothing else: a character
                may be cut in it.
        """
        try:
            with self._log.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return b""
        if whole_lines:
            data = data[: data.rfind(b"\n") + 1 or len(data)]
        self._offset += len(data)
        return data


def last_lines(log: Path, count: int, most_bytes: int = 1 << 14) -> list[str]:
    """The last ``count`` non-empty lines of a log; a redrawn progress bar counts as lines of its own.

    Only the last ``most_bytes`` bytes are read. A log that is not there gives one line that says so.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return [f"({log} is not there)"]
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
