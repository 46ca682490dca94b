"""The locks between processes, which the C library keeps as files in /dev/shm, a page each (sem_overview(7))."""

from __future__ import annotations

import os
import resource
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def lack_of_locks(count: int, folder: Path = SHARED_MEMORY) -> str | None:
    """Why so many locks cannot be made: what /dev/shm has, and what is needed; None where they can."""
    need = count * resource.getpagesize()
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}; {count} locks between processes need {_kib(need)} there"
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    if not os.access(folder, os.W_OK):
        return f"{folder}: may not be written; {count} locks between processes need {_kib(need)} there"
    if status.f_blocks == 0 or free >= need:  # a tmpfs without a limit has 0 blocks
        return None
    return f"{folder}: has {_kib(free)} free of {_kib(size)}, and {count} locks between processes need {_kib(need)}"


def _kib(size: int) -> str:
    return f"{size // 1024} KiB" if size < 1 << 20 else f"{size / (1 << 20):.0f} MiB"
