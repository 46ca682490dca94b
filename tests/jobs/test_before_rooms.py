"""What version 0.1 pickled and submitted runs under this one: such jobs may be queued while it is installed.

``before_rooms/`` was made by that version: a pickled function, the scripts of a job of ``jobs.submit`` for Slurm and
PBS, of one of several tasks of the submitit plugin, ``pbs/train.pbs``, and a ``run.json`` of schema 2.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

import jobs.runner
from jobs.record.run_json import read_spec
from segdist.run.folder import RunFolder

from .conftest import ROOT, STAND_IN

pytestmark = pytest.mark.slow  # trains, or starts many processes

OLD = Path(__file__).with_name("before_rooms")
SLURM = {
    "SLURM_JOB_ID": "11", "SLURM_JOB_NODELIST": "n1", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NODEID": "0", "SLURM_LOCALID": "0", "SLURM_PROCID": "0",
}  # fmt: skip
PBS = {"PBS_JOBID": "11.head", "PBS_O_HOST": "login1"}


def fill_in(name: str, folder: Path) -> str:
    """One of the files, with this machine's paths."""
    text = (OLD / name).read_text()
    for word, value in (
        ("@FOLDER@", str(folder)),
        ("@PYTHON@", sys.executable),
        ("@PATH@", shlex.quote(os.environ["PATH"])),
        ("@ROOT@", str(ROOT)),
    ):
        text = text.replace(word, value)
    return text


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder as version 0.1 has left it for its job with the id 11, whose launcher is the stand-in."""
    folder = RunFolder(tmp_path / "runs" / "first")
    record = json.loads(fill_in("run.json", tmp_path))
    command = record["steps"][0]["command"]
    at = command.index("segdist.launch")
    record["steps"][0]["command"] = [sys.executable, STAND_IN, *command[at + 1 :]]
    folder.step("train").path.mkdir(parents=True)
    folder.run_json.write_text(json.dumps(record))
    folder.step("train").config_json.write_text(json.dumps({"run": str(folder.path), "training": {"epochs": 1}}))
    submitit = folder.path / ".submitit" / "1"
    submitit.mkdir(parents=True)
    shutil.copy(OLD / "submitted.pkl", submitit / "11_submitted.pkl")
    return folder


def start(script: Path, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as its job would."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PBS_", "SUBMITIT_"))}
    return subprocess.run(
        ["bash", str(script)], env={**own, "PYTHONPATH": str(ROOT), **environ}, cwd=cwd,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_pickled_job_is_todays_function() -> None:
    delayed = DelayedSubmission.load(OLD / "submitted.pkl")
    assert delayed.function is jobs.runner.run_steps
    assert delayed.args == ("runs/first", ("train",))


def test_a_run_json_of_schema_2_is_read(run: RunFolder) -> None:
    spec = read_spec(run.run_json)
    assert (spec.schema_version, spec.state, spec.cluster, spec.submitit_folder) == (
        3,
        "submitted",
        "slurm",
        ".submitit/1",
    )
    assert [job.id for job in spec.jobs] == ["11"]


@pytest.mark.parametrize(("name", "environ"), [("slurm_train.sh", SLURM), ("pbs_train.sh", PBS)])
def test_a_queued_job_runs_to_its_end(name: str, environ: dict[str, str], run: RunFolder, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(fill_in(name, tmp_path))
    done = start(script, environ, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    result = run.step("train").read_result()
    assert (result.status, result.job["id"]) == ("completed", "11")
    outcome = json.loads((run.path / ".submitit" / "1" / "outcome-train.json").read_text())
    assert outcome == {"exit_code": 0, "steps": {"train": 0}}


def test_a_script_of_several_tasks_finds_its_starter(run: RunFolder, tmp_path: Path) -> None:
    script, nodes = tmp_path / "job.sh", tmp_path / "nodes"
    script.write_text(fill_in("pbs_tasks.sh", tmp_path))
    nodes.write_text(f"{socket.gethostname()}\n")
    done = start(script, {**PBS, "PBS_NODEFILE": str(nodes)}, tmp_path)
    assert done.returncode == 2
    said = "".join(path.read_text() for path in (run.path / ".submitit" / "1").glob("11_log*"))
    assert f"error: --nodes 2: the job has 1 ({socket.gethostname()})" in said


def test_a_script_by_hand_finds_what_it_runs(tmp_path: Path) -> None:
    script = shutil.copy(OLD / "train.pbs", tmp_path)
    done = start(script, {"PBS_O_WORKDIR": str(tmp_path), "PYTHON": sys.executable, "ARGS": "--run r"}, tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: {script}: runs inside a PBS job; submit it with qsub\n"
