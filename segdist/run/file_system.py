"""What a file system may lack, and what is done instead: hard links, fsync, a rename over another file.

CIFS, exFAT and many FUSE file systems lack one or another. What is missing costs safety in a crash, never the
training: each is said once, with what it means. An error that says the storage fails (EIO, ENOSPC) is no lack, and is
raised.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from pathlib import Path
from typing import IO, Any

_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP)
_NO_LINKS = (*_UNSUPPORTED, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EXDEV)
_NO_FOLDER_SYNC = (*_UNSUPPORTED, errno.EPERM, errno.EACCES, errno.EBADF, errno.EISDIR)
_NO_REPLACE = (*_UNSUPPORTED, errno.EPERM, errno.EACCES, errno.EEXIST, errno.EBUSY, errno.ETXTBSY)
_said: set[str] = set()


def say_once(what: str, place: Path, meaning: str) -> None:
    """Say what the file system of ``place`` lacks, the first time that this process comes upon it."""
    if what not in _said:
        _said.add(what)
        print(f"warning: {place}: the file system has no {what}; {meaning}", file=sys.stderr, flush=True)


def make_link(source: Path, target: Path) -> bool:
    """Give a file a second name, which must not be there; False where the file system has no hard links.

    Raises:
        FileExistsError: where ``target`` is there.
        OSError: where the storage fails.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        say_once("hard links", target.parent, "goes on without: a copy, or a file made at its own place, does instead")
        return False
    return True


def sync_file(file: IO[Any], path: Path) -> None:
    """Have what was written to an open file put on disk, as far as the file system does that."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        say_once("fsync", path.parent, "goes on without: after a power failure the newest files may be cut short")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable (fsync of the folder), as far as the file system does that.

    Raises:
        OSError: naming the folder, where the storage fails.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        say_once(
            "fsync of folders", folder, "goes on without: after a power failure the file before the newest may be there"
        )


def replace_file(source: Path, target: Path) -> None:
    """Move a file over another, in one move where the file system does that; else the other steps aside for it.

    Raises:
        OSError: where neither works; ``target`` is as before.
    """
    try:
        source.replace(target)
        return
    except OSError as error:
        if error.errno not in _NO_REPLACE or not target.exists():
            raise
        refused = error
    aside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        target.rename(aside)
    except OSError:  # so it is not the replacing that is refused
        raise refused from None
    try:
        source.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.unlink()
    say_once("rename over another file", target.parent, "goes on without: a reader may miss a file for a moment")
