"""File systems that lack what POSIX has, or fail: training goes on without, or names the file and harms nothing."""

import errno
import json
import os
import subprocess
import sys

import pytest

from segdist.run.result import read_result
from segdist.training.checkpoint_file import read_checkpoint

OPTIONS = (
    *("--model", "unet", "--width", "4", "--crop", "32x64", "--batch", "2", "--workers", "0", "--ipex", "off"),
    *("--val-size", "32x64", "--checkpoint-minutes", "0"),
)
ALL = "link symlink fsync-folder fsync chmod utime rename-over flock fallocate"


def train(run_python, run, data, *more, **environment):
    task = ("train", "--run", run, "--data", data, *OPTIONS, *more)
    return run_python("segdist.launch", *task, **environment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "lacks"),
    [
        ("link fsync-folder chmod symlink", ["hard links", "fsync of folders"]),
        (ALL, ["hard links", "fsync of folders", "fsync", "rename over another file"]),
    ],
)
def test_a_training_runs_without_and_says_once_what_it_lacks(run_python, preload, streets, tmp_path, faults, lacks):
    run = tmp_path / "run"
    done = train(run_python, run, streets, "--epochs", "3", **preload(faults, tmp_path))
    assert done.returncode == 0, done.stderr
    log = (run / "train" / "logs" / "rank0.log").read_text()
    for what in lacks:
        assert log.count(f"the file system has no {what}; ") == 1
    assert log.count("the file system has no") == len(lacks)
    assert "Traceback" not in log
    checkpoints = run / "train" / "checkpoints"
    assert read_checkpoint(checkpoints / "last.pt")["step"] == 12
    assert (checkpoints / "best.pt").is_file()
    assert read_result(run / "train" / "result.json").status == "completed"
    left = {path.name for path in (run / "train").iterdir()} - {"progress.json"}
    assert left == {"begun.json", "checkpoints", "choices.json", "config.json", "logs", "metrics.jsonl", "model.pt",
                    "result.json", "steps.jsonl"}  # fmt: skip
    assert not [path for path in checkpoints.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_read_error_ends_the_start_by_name_and_renames_nothing(run_python, preload, streets, tmp_path):
    run = tmp_path / "run"
    assert train(run_python, run, streets, "--epochs", "1").returncode == 0
    (run / "train" / "result.json").unlink()
    before = {path.name: path.read_bytes() for path in (run / "train" / "checkpoints").iterdir()}
    done = train(run_python, run, streets, "--epochs", "1", **preload(f"read:last.pt:{errno.EIO}", run))
    assert done.returncode == 1
    said = f"{run}/train/checkpoints/last.pt: Input/output error; what was saved before is kept; mend"
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in (run / "train" / "checkpoints").iterdir()} == before
    again = train(run_python, run, streets, "--epochs", "1")
    assert again.returncode == 0
    assert "goes on from" in again.stdout


CASES = """
import errno, json, os, sys
from pathlib import Path
import torch
from segdist.training.checkpoint_file import CheckpointFolder
from segdist.run.files import write_atomic, append_json_line, write_json
folder = CheckpointFolder(Path(sys.argv[1]) / "checkpoints", keep=3)
for step in (1, 2):
    folder.write({"step": step, "w": torch.zeros(9)}, is_best=True)
before = sorted(os.listdir(folder.path))
acts = {
    "newest": lambda: CheckpointFolder(folder.path, 3).newest(print),
    "write": lambda: folder.write({"step": 3}, is_best=True),
    "atomic": lambda: write_atomic(folder.path.parent / "result.json", b"{}"),
    "row": lambda: append_json_line(folder.path.parent / "metrics.jsonl", {}),
    "start": lambda: __import__("segdist.run.start_mode").run.start_mode.has_checkpoints(
        __import__("segdist.run.folder").run.folder.StepFolder(folder.path.parent, "train", "train")),
}
answers = []
for act, faults in json.loads(sys.argv[2]):
    os.environ["FAULTS"] = faults
    try:
        acts[act]()
        answers.append("nothing was raised")
    except OSError as error:
        os.environ["FAULTS"] = ""
        answers.append([error.errno, error.filename, sorted(os.listdir(folder.path)) == before])
print(json.dumps(answers))
"""


def test_each_error_of_the_storage_names_its_file_and_leaves_the_others_alone(preload, tmp_path):
    """Of a checkpoint that is opened, read, listed; of files that are written, under a name of their own first."""
    wanted = [
        ("newest", "open", "last.pt", errno.ESTALE, "checkpoints/last.pt"),
        ("newest", "open", "last.pt", errno.EACCES, "checkpoints/last.pt"),
        ("newest", "read", "last.pt", errno.EIO, "checkpoints/last.pt"),
        ("newest", "list", "checkpoints", errno.EIO, "checkpoints"),
        ("start", "list", "checkpoints", errno.EACCES, "checkpoints"),
        ("row", "write", "metrics.jsonl", errno.EDQUOT, "metrics.jsonl"),
        ("row", "open", "metrics.jsonl", errno.EACCES, "metrics.jsonl"),
    ]
    asked = [(act, f"{call}:{ending}:{number}") for act, call, ending, number, _ in wanted]
    done = subprocess.run(
        [sys.executable, "-c", CASES, str(tmp_path), json.dumps(asked)],
        capture_output=True,
        text=True,
        env={**os.environ, **preload("", tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [[number, str(tmp_path / name), True] for _, _, _, number, name in wanted]
    assert json.loads(done.stdout) == expected


RACE = """
import sys, threading
from pathlib import Path
from segdist.run.folder import RunFolder
from segdist.run.lease import LeaseHeld, acquire
step, won, ready = RunFolder(sys.argv[1]).step("train"), [], threading.Barrier(8)
def contend(number):
    ready.wait()
    try:
        won.append(acquire(step, {"SEGDIST_JOB_ID": str(number)}))
    except LeaseHeld:
        return
threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
(lease,) = won
lease.check()
lease.release()
print(sorted(path.name for path in step.path.iterdir()))
"""


@pytest.mark.parametrize("faults", ["link", "link rename-over fsync fsync-folder"])
def test_without_hard_links_one_of_many_gets_the_lease(preload, tmp_path, faults):
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, **preload(faults, tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert done.stderr.count("the file system has no hard links") == 1


@pytest.mark.slow
def test_a_sweep_on_one_machine_keeps_its_turn_without_locks_and_symbolic_links(run_python, preload, streets, tmp_path):
    task = ("train", "--cluster", "local", "--wait", "--sweep", "lr=0.1,0.2", "--max-parallel", "1", "--epochs", "1")
    done = run_python(
        "jobs.submit", *task, "--run", tmp_path / "s", "--data", streets, *OPTIONS, **preload(ALL, tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = [read_result(tmp_path / "s" / name / "train" / "result.json") for name in ("lr=0.1", "lr=0.2")]
    assert [result.status for result in results] == ["completed", "completed"]
    first, second = sorted(results, key=lambda result: result.started_at)
    assert first.ended_at <= second.started_at
