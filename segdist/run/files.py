"""Files that are whole and on disk: atomic, durable writes, and JSON.

A reader never sees half a file: every file is written beside its place, flushed to disk and moved there. What a file
system cannot do (:mod:`segdist.run.file_system`) is done without, and said once. Each error names the file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from segdist.run.file_system import replace_file, sync_file, sync_folder

_STALE_TRIES = 5


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that after a crash either the old or the new file is there, whole and on disk.

    Raises:
        OSError: naming ``path``; what was there before is still there.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file_beside(path) as (file, temporary):
            file.write(data)
            sync_file(file, path)
            replace_file(temporary, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def new_file_beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file under a hidden name in the folder of ``path``, open to be written; removed where the block raises.

    Its mode is what the user's umask leaves: a file system without modes is asked for nothing.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file, temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the block name this file: a write, a read or an fsync names none, a temporary file means it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename == str(path):
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), str(path)) from error


def read_text(path: Path) -> str:
    """The text of a file, UTF-8; read again where a network file system has just put another in its place (ESTALE).

    Raises:
        OSError: naming the file.
        UnicodeDecodeError: where it is no text.
    """
    for left in reversed(range(_STALE_TRIES)):
        try:
            with naming(path):
                return path.read_text(encoding="utf-8")
        except OSError as error:
            if error.errno != errno.ESTALE or left == 0:
                raise
    raise AssertionError


def list_names(folder: Path) -> list[str]:
    """The names in a folder, in order; none where there is no such folder.

    Raises:
        OSError: where it cannot be read, which a glob would take for an empty one.
    """
    try:
        with naming(folder), os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def explain(error: OSError, place: str = "") -> str:
    """One line: the file, else ``place``, and what the system said."""
    name = error.filename if error.filename is not None else place
    reason = error.strerror or str(error) or type(error).__name__
    return f"{os.fsdecode(name) if isinstance(name, bytes) else name}: {reason}" if name not in ("", None) else reason


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN and infinity are refused, as other readers cannot take them."""
    write_atomic(path, json_text(values).encode())


def json_text(values: Mapping[str, Any]) -> str:
    """The text of a JSON file; raises ValueError for NaN and infinity."""
    return _dumps(values, indent=2) + "\n"


def append_json_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one row to a ``.jsonl`` file and flush it to disk."""
    append_json_lines(path, [values])


def append_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a ``.jsonl`` file and flush them to disk."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(_dumps(row) + "\n" for row in rows))
        sync_file(file, path)


def _dumps(values: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON that UTF-8 can hold: bytes of a file name that are none are written as JSON's own escapes."""
    text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(values, indent=indent, allow_nan=False)
    return text
