"""Files of the kernel, what they say about processes, and the one thing it does for us: a signal when the parent dies.

Only the standard library is imported here: the launcher, the agent of a node, the lease and the jobs' commands use it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

ReadText = Callable[[str], str]
"""What reads a file by its path; a test gives the files of another machine."""


def read_text(path: str) -> str:
    """The text of a file of the kernel's or the scheduler's, which is ASCII."""
    return Path(path).read_text(encoding="ascii", errors="replace")


def boot_id() -> str:
    """The kernel's id of this boot: pids and ticks of two boots cannot be compared."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def stat_of(pid: int) -> tuple[str, int]:
    """State letter of a process, and its start in clock ticks since boot (proc(5), fields 3 and 22 of stat).

    Raises:
        OSError: where there is no such process.
    """
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def process_start(pid: int) -> int | None:
    """When a living process started, in ticks since boot (proc(5), field 22 of stat); None for none, or a zombie.

    Pids are used again, but not by a process that started at the same clock tick.
    """
    try:
        state, ticks = stat_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in ("Z", "X") else ticks


def end_with_parent(parent: int, number: int) -> Callable[[], None]:
    """What lets the kernel send that signal to the process that calls it when ``parent``, which started it, ends.

    It may be called between fork and exec: the look-up of prctl, which may take a lock, is done here. The setting
    survives exec and is tied to the thread that forks, hence the main thread.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]

    def prepare() -> None:
        if prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it died before prctl: nobody will be told
            os.kill(os.getpid(), number)

    return prepare
