"""Tuning on this very machine, at a small size: the profile, who takes it, and a tuning that is killed."""

import json
import os
import select
import subprocess
import sys

import psutil
import pytest

from segdist.machine.profile import read_profile
from segdist.run.folder import RunFolder
from segdist.tasks.tune import busy_text

pytestmark = pytest.mark.slow  # starts many processes

WORK = ("--model", "unet", "--width", "4", "--crop", "64x128", "--batch", "2")


@pytest.fixture(scope="module")
def tuned(run_python, tmp_path_factory):
    """A run folder with a tuning of about a minute, and the folder of its profile."""
    folder = tmp_path_factory.mktemp("tune")
    done = run_python(
        *("segdist.launch", "tune", "--run", folder / "run", *WORK, "--budget-s", "75"),
        *("--profiles", folder / "profiles", "--allocator", "tuned"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_the_profile_holds_the_fastest_and_all_that_was_tried(tuned):
    folder, done = tuned
    (path,) = (folder / "profiles").iterdir()
    profile = read_profile(path)
    metrics = RunFolder(folder / "run").step("tune").read_result().metrics
    assert metrics["profile"] == str(path)
    assert metrics["choices"] == profile.choices.describe()
    assert metrics["trials"] == list(profile.trials)
    measured = [row for row in profile.trials if row["over_best"] is not None]
    assert measured
    assert all(row["step_s"] > 0 and row["peak_memory_mb"] > 100 for row in measured)
    assert profile.inference in ("channels_last", "contiguous")
    assert f"written to {path}" in done.stdout
    assert "s/step" in done.stdout


def test_a_training_takes_what_was_measured_and_says_so(tuned, streets, run_python, tmp_path):
    folder, _ = tuned
    (path,) = (folder / "profiles").iterdir()
    profile = read_profile(path)
    run = RunFolder(tmp_path / "run")
    options = ("--width", "4", "--crop", "64x128", "--batch", "2", "--epochs", "1", "--workers", "0", "--data", streets)
    done = run_python("segdist.launch", "train", "--run", run.path, *options, "--profiles", folder / "profiles")
    assert done.returncode == 0, done.stdout + done.stderr
    decisions = run.step("train").read_result().decisions
    assert decisions["memory-format"] == (
        f"{profile.choices.memory_format} (measured on this kind of node ({path.name}))"
    )
    assert decisions["wait-policy"] == profile.choices.wait
    assert decisions["allocator"].startswith(profile.choices.allocator)
    kept = json.loads(run.step("train").choices_json.read_text())["choices"]
    assert kept["memory_format"] == profile.choices.memory_format
    assert kept["ranks"] == 1


def test_a_killed_tuning_leaves_no_profile_and_no_process(tmp_path):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "segdist.launch", "tune", "--run", str(tmp_path / "run"), *WORK),
            *("--budget-s", "120", "--profiles", str(tmp_path / "profiles")),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "s a step" in line:
            break
    workers = _steps_of(process)
    process.kill()
    process.wait()
    assert workers
    for pidfd in workers:  # readable when the process has ended
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)
    assert not (tmp_path / "profiles").exists()


def _steps_of(launcher):
    """Handles of the processes that do steps, among what a launcher has started."""
    found = psutil.Process(launcher.pid).children(recursive=True)
    return [os.pidfd_open(child.pid) for child in found if "segdist.tuning.step_rank" in child.cmdline()]


def test_a_machine_that_is_busy_is_said_to_be():
    assert busy_text(0.1) == ""
    assert busy_text(0.5) == "other programs take 50 % of the cores: tune again when the machine is idle"


def test_two_ranks_are_refused(run_python, tmp_path):
    done = run_python("segdist.launch", "--ranks-per-node", "2", "tune", "--run", tmp_path / "run", *WORK)
    assert done.returncode == 2
    assert "tune on 2 ranks: it runs on one; start it with one rank" in done.stdout + done.stderr
