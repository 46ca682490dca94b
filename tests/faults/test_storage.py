"""The storage fails: the training ends with what was saved whole, and goes on from it once the storage is mended."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from segdist.training.checkpoint_file import read_checkpoint

from .harness import assert_same

FROZEN = {"place": "agree", "count": 6, "act": "hang"}
"""Rank 0 stops in the second step of epoch 2, and can be woken."""
DAY = 86400


@pytest.fixture
def mounted(tmp_path):
    """Mount something; only where root may."""
    places = []

    def mount(*arguments: str, place: Path) -> None:
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        places.append(place)

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system takes root and mount(8)")
    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


def frozen(run, *options, act="hang"):
    """A start whose rank 0 stands still in epoch 2."""
    start = run.start(*options, faults={0: [{**FROZEN, "act": act}]})
    start.await_text("epoch 1/3")
    start.await_frozen(0)
    return start


def saved(run):
    """Step of each checkpoint, all of which must be whole."""
    return {path.name: read_checkpoint(path)["step"] for path in run.run.step("train").checkpoints.glob("*.pt")}


@pytest.mark.parametrize("free_kb", [0, 300])
def test_a_full_disk_costs_nothing_that_was_saved(training, mounted, undisturbed, free_kb):
    """Full at once, or in the midst of the next checkpoint."""
    run = training()
    mounted("-t", "tmpfs", "-o", "size=24m", "tmpfs", place=run.path)
    start = frozen(run)
    before = saved(run)
    ballast = run.path / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(ballast, ballast.stat().st_size - 1024 * free_kb)
    start.wake(0)
    assert start.codes() == [1, 1], start.log()
    assert "No space left on device; what was saved before is kept; mend the storage and give the" in start.log()
    assert "Traceback" not in start.log(0) + start.log(1)
    assert "No space left on device" in start.log(1) or "rank 0 cannot go on" in start.log(1)
    assert max(saved(run).values()) >= max(before.values())
    assert saved(run).keys() >= {"best.pt"}
    ballast.unlink()
    assert "goes on from" in run.finish().log()
    assert_same(run.left(), undisturbed())


def test_a_run_folder_that_becomes_read_only_costs_nothing_that_was_saved(training, mounted, undisturbed):
    run = training()
    mounted("-t", "tmpfs", "-o", "size=24m", "tmpfs", place=run.path)
    start = frozen(run, "--checkpoint-minutes", "5", act="hang when written")  # else it is too busy for a remount
    before = saved(run)
    subprocess.run(["mount", "-o", "remount,ro", str(run.path)], check=True)
    start.wake(0)
    assert start.codes() == [1, 1], start.log()
    assert "Read-only file system" in start.log()
    assert "Traceback" not in start.log(0) + start.log(1)
    assert saved(run) == before
    refused = run.start()
    assert refused.codes() == [1, 1]
    assert "Read-only file system; what was saved before is kept" in refused.log()
    subprocess.run(["mount", "-o", "remount,rw", str(run.path)], check=True)
    assert "goes on from" in run.finish().log()
    assert_same(run.left(), undisturbed())


def test_a_run_folder_that_goes_away_and_comes_back_costs_nothing_that_was_saved(
    training, mounted, undisturbed, tmp_path
):
    run = training()
    there = tmp_path / "there"
    there.mkdir()
    mounted("--bind", str(there), place=run.path)
    start = frozen(run)
    before = saved(run)
    subprocess.run(["umount", "-l", str(run.path)], check=True)
    start.wake(0)
    assert start.codes() == [1, 1]
    assert "has lost its holder.json (removed, or the folder with it)" in start.log()
    assert not list(run.path.iterdir())
    mounted("--bind", str(there), place=run.path)
    after = saved(run)  # whole, each of them; the newest of those before has another name where one was added
    assert set(after.values()) >= set(before.values()) - {min(before.values())}
    assert after["last.pt"] >= before["last.pt"]
    assert "goes on from" in run.finish().log()
    assert_same(run.left(), undisturbed())


def test_slow_storage_holds_the_training_up_and_loses_no_checkpoint(training, undisturbed):
    """Several writes take a second: the training waits for the one before, and none is left out or overtaken."""
    run = training()
    slow = [{"place": "fsync", "count": count, "act": "wait", "with": 1} for count in (8, 14, 21)]
    start = run.start(faults={0: slow})
    assert start.codes() == [0, 0], start.log()
    assert_same(run.left(), undisturbed())
    metrics = run.run.step("train").read_result().metrics
    assert metrics["checkpoints"] == 12 + 3  # after each step, and each epoch
    assert metrics["checkpoint_stall_ms_max"] > 500
    assert saved(run)["last.pt"] == 12


def test_clocks_that_disagree_change_nothing(training, undisturbed):
    """Ranks two days apart, a restart a week earlier, and files from the future."""
    run = training()
    start = run.start(
        faults={
            0: [{"place": "clock", "with": DAY}, {"place": "step", "count": 10}],
            1: [{"place": "clock", "with": -DAY}],
        }
    )
    assert start.wait(0) == -9
    start.kill()
    newest = read_checkpoint(run.run.step("train").checkpoints / "last.pt")["step"]
    for path in run.path.rglob("*"):
        seconds = path.stat().st_mtime + (-9 if path.name == "last.pt" else 9) * 365 * DAY
        os.utime(path, (seconds, seconds))
    again = run.start(faults={0: [{"place": "clock", "with": -7 * DAY}], 1: [{"place": "clock", "with": DAY}]})
    assert again.codes() == [0, 0], again.log()
    assert f"last.pt: step {newest} (epoch" in again.log()
    assert_same(run.left(), undisturbed())
