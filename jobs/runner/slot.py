"""The slot of a sweep on one machine: the runs that share it are at work one after the other."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from segdist.run.file_system import say_once

_POLL_S = 0.5
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def hold_slot(path: str, is_stopped: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock of a slot while at work; give up waiting for it when the job is stopped.

    Args:
        path: the file of the slot; empty for a run that shares none.
        is_stopped: looked at while waiting.
    """
    if not path:
        yield
        return
    with Path(path).open("ab") as file, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        while not is_stopped() and not _is_taken_now(file, name, path):
            time.sleep(_POLL_S)
        yield


def _is_taken_now(file: IO[bytes], name: socket.socket, path: str) -> bool:
    """Take the lock, where nobody has it. Both kinds are given back by the kernel, however this process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OSError(error.errno, error.strerror, path) from error
    say_once("locks", Path(path).parent, "the sweep's runs wait for each other on this machine only")
    try:
        name.bind("\0segdist-" + hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest())
        return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
