"""Decoding processes that hang, die, or have no room: the training ends by a line, and with what can be saved."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segdist.run.result import read_result

OPTIONS = ("--width", "4", "--epochs", "1", "--crop", "32x64", "--batch", "2", "--workers", "2", "--ipex", "off")


def children(pid):
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def at_work(training, *options):
    """A start with two decoding processes that is in the midst of a long training, and their numbers."""
    start = training("run", 1, "--workers", "2", "--epochs", "500", *options).start()
    while not start.logs[0].exists():
        time.sleep(0.02)
    start.await_text("epoch 2/500")
    workers = children(start.pids[0])
    assert len(workers) == 2
    return start, workers


def test_a_training_whose_workers_hang_is_saved_at_the_signal_to_stop(training):
    start, workers = at_work(training)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    start.signal(signal.SIGTERM)
    assert start.codes() == [75], start.log()
    assert time.monotonic() - began < 30
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert "stopped on SIGTERM after step" in start.log()


def test_workers_that_give_nothing_end_the_training_after_its_timeout(training):
    start, workers = at_work(training, "--timeout", "3")
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    assert start.codes() == [1], start.log()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    assert "error: no batch has come from 2 workers for 3 s (--timeout); look whether the storage" in start.log()
    assert "Traceback" not in start.log()


def test_a_worker_that_is_killed_is_one_line(training):
    start, workers = at_work(training)
    os.kill(workers[0], signal.SIGKILL)
    assert start.codes() == [1], start.log()
    assert "error: a decoding process has died (DataLoader worker (pid" in start.log()
    assert "mostly memory has run out (see dmesg): give fewer --workers" in start.log()
    assert "Traceback" not in start.log()


@pytest.mark.slow
@pytest.mark.parametrize("length", [112])
def test_a_long_tmpdir_hangs_nothing(run_python, streets, tmp_path, length):
    folder = Path("/tmp") / ("t" * (length - 5))
    folder.mkdir(exist_ok=True)
    task = ("train", "--run", tmp_path / "run", "--data", streets, *OPTIONS)
    try:
        done = run_python("segdist.launch", *task, timeout=100, TMPDIR=str(folder))
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "run" / "train" / "result.json").status == "completed"


@pytest.mark.slow
@pytest.mark.parametrize(("size", "code"), [("32k", 2), ("200k", 0)])
def test_a_small_dev_shm_is_enough_or_named(streets, tmp_path, size, code):
    """32 KiB do not hold the locks; batches take none of it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small /dev/shm takes root and unshare(1)")
    task = [sys.executable, "-m", "segdist.launch", "train", "--run", tmp_path / "run", "--data", streets, *OPTIONS]
    inside = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", inside, "sh", *map(str, task)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if code:
        assert (
            "error: --workers 2: /dev/shm: has 32 KiB free of 32 KiB, and 15 locks between processes need 60 KiB; "
            "make it larger (mount -o remount,size=1G /dev/shm; a container takes --shm-size), or give --workers 0"
        ) in done.stderr
