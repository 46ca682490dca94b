"""The heartbeat of a job of the local cluster: how other machines, and other containers, see that it is alive."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from segdist.run.file_system import replace_file
from segdist.run.files import naming, read_text

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats."""


def heartbeat_path(job_folder: Path) -> Path:
    """Where a job writes a number that grows."""
    return job_folder / "beat"


@contextlib.contextmanager
def heartbeat(job_folder: Path) -> Iterator[None]:
    """Write the heartbeat while in the block; storage that fails for a while is said once, and tried again."""
    ended = threading.Event()
    thread = threading.Thread(target=_write, args=(heartbeat_path(job_folder), ended), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write(path: Path, ended: threading.Event) -> None:
    count, well = 0, True
    temporary = path.with_name(f".{path.name}")
    while True:
        try:
            with naming(path):
                temporary.write_text(f"{count}\n", encoding="ascii")
                replace_file(temporary, path)
            well = True
        except OSError as error:
            if well:
                print(f"warning: {error}; others may think this job dead", file=sys.stderr, flush=True)
            well = False
        count += 1
        if ended.wait(HEARTBEAT_S):
            return


def read_heartbeat(path: Path) -> str:
    """What stands in a heartbeat's file; empty where there is none, or it cannot be read now."""
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError):
        return ""
