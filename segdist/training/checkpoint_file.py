"""Checkpoints: files that are whole or not there, with a checksum, so that a damaged one is known and passed over.

A file is what ``torch.save`` writes (plain data and tensors; loaded with ``weights_only=True``), followed by 40 bytes:
a mark and the SHA-256 of all before it. ``torch.load`` reads such a file as it is.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import pickle
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from segdist.config import ConfigError
from segdist.run.file_system import make_link, replace_file, sync_file, sync_folder
from segdist.run.files import list_names, naming, new_file_beside

FORMAT = "segdist-checkpoint-1"
_MARK = b"SEGDIST\x01"
_ANY_MARK = _MARK[:-1]
_PIECE = 1 << 22
_TRAILER = len(_MARK) + hashlib.sha256().digest_size


class DamagedCheckpoint(ValueError):
    """A checkpoint that is cut short, was changed, or is none; the message names the file and why."""


class ForeignCheckpoint(ConfigError):
    """A checkpoint that is whole, and of a format that this version does not read; it is left alone."""


class CheckpointFolder:
    """``last.pt``, the newest; ``step-00000120.pt``, those before it; ``best.pt``, the best epoch's.

    Args:
        path: the step's ``checkpoints``.
        keep: how many to keep, ``last.pt`` among them, ``best.pt`` not.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path = path
        self.keep = keep
        self.last = path / "last.pt"
        self.best = path / "best.pt"
        self._last_step: int | None = None

    def write(self, state: Mapping[str, Any], is_best: bool = False) -> None:
        """Write ``last.pt`` from a state with its ``step``, durably; then let go of the oldest.

        Killed at any moment, it leaves every earlier checkpoint, the newest perhaps as ``step-….pt``.

        Raises:
            OSError: where it cannot be written; what was there before is still there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with naming(self.last), new_file_beside(self.last) as (file, temporary):
            write_checkpoint(file, {"format": FORMAT, **state})
            sync_file(file, self.last)
            if self._last_step is not None and self._last_step != state["step"] and self.last.exists():
                # A second name first: a process that is frozen here for long finds its temporary file gone, and fails;
                # what another one has written meanwhile stays last.pt.
                numbered = self._numbered(self._last_step)
                numbered.unlink(missing_ok=True)
                if not make_link(self.last, numbered):
                    replace_file(self.last, numbered)
            replace_file(temporary, self.last)
        sync_folder(self.path)
        self._last_step = state["step"]
        if is_best:
            self.mark_best(self.last)
        for old in self._older()[self.keep - 1 :]:
            old.unlink()

    def mark_best(self, path: Path) -> None:
        """Make ``best.pt`` the same file under a second name; a copy where the file system has no hard links."""
        temporary = self.path / f".best.pt.{secrets.token_hex(8)}"
        try:
            with naming(self.best):
                if not make_link(path, temporary):
                    _copy(path, temporary)
                replace_file(temporary, self.best)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.path)

    def newest(self, log: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and what it holds; None where there is none at all.

        A damaged one is named through ``log`` and set aside as ``NAME.damaged``. ``best.pt`` is the last resort.

        Raises:
            DamagedCheckpoint: where there are checkpoints and none is whole.
            ForeignCheckpoint: where the newest one is of another format.
            OSError: naming a file that cannot be read, which is not damaged for that; nothing is set aside.
        """
        damaged: list[str] = []
        names = list_names(self.path)
        for path in [path for path in (self.last, *self._older(), self.best) if path.name in names]:
            try:
                state = read_checkpoint(path)
            except DamagedCheckpoint as error:
                damaged.append(str(error))
                log(f"{error}; set aside, the one before is taken")
                path.replace(path.with_name(f"{path.name}.damaged"))
                continue
            self._last_step = state["step"] if path == self.last else None
            return path, state
        aside = self._named("*.damaged")
        if aside:
            why = "; ".join(damaged) or f"{', '.join(path.name for path in aside)} set aside before"
            raise DamagedCheckpoint(
                f"{self.path}: no checkpoint is whole ({why}); put a good one there as last.pt, "
                "or start again with --overwrite"
            )
        return None

    def remove_temporary_files(self) -> None:
        """Remove what a killed writer left unfinished; only for who holds the lease."""
        for path in self._named(".*.pt.*"):
            path.unlink()

    def remove_all(self) -> None:
        """Remove all checkpoints."""
        self.remove_temporary_files()
        for path in [*self._named("*.pt"), *self._named("*.pt.damaged")]:
            path.unlink()

    def _older(self) -> list[Path]:
        """The numbered ones, newest first."""
        return sorted(self._named("step-*.pt"), key=_step_of, reverse=True)

    def _named(self, pattern: str) -> list[Path]:
        return [self.path / name for name in list_names(self.path) if fnmatch.fnmatchcase(name, pattern)]

    def _numbered(self, step: int) -> Path:
        return self.path / f"step-{step:08d}.pt"


def write_checkpoint(file: BinaryIO, state: Mapping[str, Any]) -> None:
    """Write a state (dicts, lists, plain values, tensors) and its trailer."""
    hashing = _Hashing(file)
    try:
        torch.save(dict(state), hashing)  # type: ignore[arg-type]
    except RuntimeError:
        if hashing.failure is not None:  # torch's writer hides what the file said: a full disk, say
            raise hashing.failure from None
        raise
    file.write(_MARK + hashing.digest())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint back, its checksum first.

    Raises:
        DamagedCheckpoint: naming the file and what is wrong with it.
        ForeignCheckpoint: where its checksum is right, and what it holds is not of this format.
        OSError: naming the file, where the storage does not give it.
    """
    with naming(path), path.open("rb", buffering=0) as raw:
        file = _Reading(raw)
        _check_trailer(path, file)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            if file.failure is not None:  # torch's reader hides what the file said
                raise file.failure from None
            raise _foreign(path, str(error).splitlines()[0]) from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if not isinstance(state, dict) or found != FORMAT:
        raise _foreign(path, f"format {found}")
    return state


def _foreign(path: Path, found: str) -> ForeignCheckpoint:
    return ForeignCheckpoint(
        f"{path}: is whole, but not of the format that this version reads ({found}, not {FORMAT}); it is left alone: "
        "go on with the version that wrote it, or give another --run, or --overwrite to start afresh"
    )


def _check_trailer(path: Path, file: _Reading) -> None:
    """Compare the checksum, a piece at a time; leaves the file at its begin."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TRAILER))
    trailer = file.read()
    mark = trailer[: len(_MARK)]
    if size <= _TRAILER or not mark.startswith(_ANY_MARK):
        raise DamagedCheckpoint(f"{path}: is damaged ({size} bytes, its end is missing)")
    if mark != _MARK:
        raise _foreign(path, f"its last bytes are those of version {mark[-1]}")
    file.seek(0)
    digest, left = hashlib.sha256(), size - _TRAILER
    while piece := file.read(min(_PIECE, left)):
        digest.update(piece)
        left -= len(piece)
    if digest.digest() != trailer[len(_MARK) :]:
        raise DamagedCheckpoint(f"{path}: is damaged (its checksum differs)")
    file.seek(0)


class _Reading(io.BufferedReader):
    """A file that is read, and keeps the error that it gave."""

    failure: OSError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(size)
        except OSError as error:
            self.failure = error
            raise

    def readinto(self, buffer: Any, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.failure = error
            raise


class _Hashing(io.RawIOBase):
    """A file that is written to, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def digest(self) -> bytes:
        return self._hash.digest()


def _step_of(path: Path) -> int:
    match = re.fullmatch(r"step-(\d+)\.pt", path.name)
    return int(match[1]) if match else -1


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        sync_file(writer, target)
