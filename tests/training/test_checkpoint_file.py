"""Checkpoints are whole or not there; damaged ones are known; what was saved is there whatever happens next."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segdist.config import ConfigError
from segdist.training import checkpoint_file as checkpoint
from segdist.training.checkpoint_file import (
    FORMAT,
    CheckpointFolder,
    DamagedCheckpoint,
    read_checkpoint,
    write_checkpoint,
)


def state(step, size=1000):
    return {"step": step, "weights": {"w": torch.full((size,), float(step))}, "name": "é", "rows": [{"a": 1.5}]}


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", keep=2)


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def newest(folder, said=None):
    path, found = CheckpointFolder(folder.path, 2).newest((said if said is not None else []).append)
    return path.name, found["step"]


def test_what_is_written_is_read_back_and_torch_alone_reads_it_too(folder):
    folder.write(state(3))
    found = read_checkpoint(folder.last)
    assert torch.equal(found["weights"]["w"], state(3)["weights"]["w"])
    assert (found["name"], found["rows"]) == ("é", [{"a": 1.5}])
    assert torch.load(folder.last, weights_only=True)["step"] == 3


def test_the_newest_few_are_kept_and_the_best(folder):
    folder.write(state(1), is_best=True)
    for step in (2, 3, 4):
        folder.write(state(step))
    assert names(folder) == ["best.pt", "last.pt", "step-00000003.pt"]
    assert read_checkpoint(folder.best)["step"] == 1
    assert newest(folder) == ("last.pt", 4)
    again = CheckpointFolder(folder.path, keep=1)
    again.newest(print)
    again.write(state(5))
    assert names(folder) == ["best.pt", "last.pt"]


def test_without_hard_links_the_best_is_a_copy(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder.write(state(1), is_best=True)
    assert folder.best.read_bytes() == folder.last.read_bytes()
    assert not folder.best.samefile(folder.last)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "end", "other"])
def test_a_damaged_newest_one_is_named_and_the_one_before_is_taken(folder, damage):
    folder.write(state(1))
    folder.write(state(2))
    data = bytearray(folder.last.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    kept = {"cut": data[: len(data) // 2], "end": data[:-1], "empty": b"", "other": b"PK" + bytes(5000)}
    folder.last.write_bytes(kept.get(damage, data))
    said = []
    assert newest(folder, said) == ("step-00000001.pt", 1)
    assert str(folder.last) in said[0]
    assert "is damaged" in said[0]
    assert names(folder) == ["last.pt.damaged", "step-00000001.pt"]


def test_where_none_is_whole_it_says_so_and_keeps_them(folder):
    folder.write(state(1))
    folder.last.write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match=r"no checkpoint is whole .*last.pt: is damaged"):
        newest(folder)
    assert names(folder) == ["last.pt.damaged"]
    with pytest.raises(
        DamagedCheckpoint, match=r"no checkpoint is whole \(last.pt.damaged set aside before\); put a good one"
    ):
        newest(folder)


@pytest.mark.parametrize("kind", ["format", "mark", "content"])
def test_a_newer_one_of_another_format_is_named_and_left_alone(folder, kind, monkeypatch):
    folder.write(state(1))
    folder.write(state(2))
    if kind == "content":  # what this torch does not read
        monkeypatch.setattr(checkpoint.torch, "save", lambda values, file: file.write(b"PK" + bytes(5000)))
    if kind == "mark":
        monkeypatch.setattr(checkpoint, "_MARK", b"SEGDIST\x02")
    with folder.last.open("wb") as file:
        write_checkpoint(file, {"format": "segdist-checkpoint-2" if kind == "format" else FORMAT, "step": 3})
    monkeypatch.undo()
    before = {name: (folder.path / name).read_bytes() for name in names(folder)}
    found = {"format": "format segdist-checkpoint-2", "mark": "its last bytes are those of version 2", "content": ""}
    with pytest.raises(ConfigError, match=f"last.pt: is whole, but not of .*{found[kind]}.* is left alone: go"):
        newest(folder)
    assert {name: (folder.path / name).read_bytes() for name in names(folder)} == before


def test_the_best_is_the_last_resort(folder, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    folder.write(state(1), is_best=True)
    folder.last.write_bytes(b"")
    assert newest(folder) == ("best.pt", 1)
    assert newest(folder) == ("best.pt", 1)
    again = CheckpointFolder(folder.path, keep=2)
    again.newest(print)
    again.write(state(2))
    assert newest(folder) == ("last.pt", 2)


def test_none_at_all_is_none(folder):
    assert folder.newest(print) is None


class Killed(BaseException):
    """Stands for -9: what comes after it does not run."""


@pytest.mark.parametrize("moment", range(1, 12))
@pytest.mark.parametrize("place", ["replace", "fsync", "link", "unlink"])
def test_a_writer_that_ends_at_any_moment_leaves_the_earlier_or_the_new_one(folder, monkeypatch, place, moment):
    """As an error would, so the cleaning up is tried as well; tests/faults kills for real."""
    folder.write(state(1), is_best=True)
    folder.write(state(2))
    owner = os if place in ("fsync", "link") else Path
    original, calls = getattr(owner, place), 0

    def dying(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == moment:
            raise Killed
        return original(*arguments, **options)

    monkeypatch.setattr(owner, place, dying)
    try:
        folder.write(state(3), is_best=True)
        written = True
    except Killed:
        written = False
    assert not (written and moment == 1)  # each place is come to
    monkeypatch.undo()
    name, step = newest(folder)
    assert step == 3 or (step == 2 and not written), (name, step)
    assert read_checkpoint(folder.best)["step"] in ((3,) if written else (1, 3))
    folder.remove_temporary_files()
    assert not [name for name in names(folder) if name.startswith(".")]


def test_a_full_disk_leaves_what_was_there(folder, monkeypatch):
    folder.write(state(1))

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint._Hashing, "write", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write(state(2))
    assert names(folder) == ["last.pt"]
    assert newest(folder) == ("last.pt", 1)


def test_clearing_removes_all_of_them(folder):
    folder.write(state(1), is_best=True)
    (folder.path / ".last.pt.abc").write_bytes(b"")
    folder.remove_all()
    assert names(folder) == []


def test_reading_holds_a_checkpoint_once(tmp_path):
    """The peak of the resident memory, by the kernel's own account, of a process that reads 192 MB."""
    with (tmp_path / "last.pt").open("wb") as file:
        write_checkpoint(file, {"format": FORMAT, **{str(n): torch.full((4_000_000,), n) for n in range(6)}})
    code = f"""
import pathlib, re
from segdist.training.checkpoint_file import read_checkpoint
def mb(name):
    return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
before = mb("VmRSS")
state = read_checkpoint(pathlib.Path({str(tmp_path / "last.pt")!r}))
assert int(state["5"][-1]) == 5
print(mb("VmHWM") - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 170 < float(run.stdout) < 300
