"""Files that are whole and on disk: atomic, durable writes, and JSON.

A reader never sees half a file: every file is written beside its place, flushed to disk and moved there.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that after a crash either the old or the new file is there, whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable (fsync of the folder)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON atomically; NaN and infinity are refused, as other readers cannot take them."""
    write_atomic(path, json_text(values).encode())


def json_text(values: Mapping[str, Any]) -> str:
    """The text of a JSON file; raises ValueError for NaN and infinity."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def append_json_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append one row to a ``.jsonl`` file and flush it to disk."""
    append_json_lines(path, [values])


def append_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a ``.jsonl`` file and flush them to disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())
