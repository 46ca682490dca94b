"""A container inside a Slurm job, which has the job's variables and none of Slurm's programs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.run.folder import RunFolder

from .conftest import ROOT

pytestmark = pytest.mark.slow
JOB = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": socket.gethostname(), "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
    "SLURM_TASKS_PER_NODE": "1",
}  # fmt: skip
SMALL = (
    "--model", "unet", "--width", "4", "--crop", "64x128", "--batch", "2", "--epochs", "1", "--workers", "0",
    "--check", "headers",
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "job"),
    [
        (("segdist.launch", "train"), {"cluster": "slurm", "id": "4711", "restart": "0"}),
        (("jobs.submit", "train", "--cluster", "local", "--nodes", "2", "--wait"), None),
        (("jobs.submit", "train", "--wait"), None),
    ],
)
def test_a_training_starts_on_this_machine(
    tmp_path: Path, streets: Path, command: tuple[str, ...], job: dict[str, str] | None
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env", "git"):
        (programs / name).symlink_to(shutil.which(name) or "/nowhere")
    run = RunFolder(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", *command, "--run", str(run.path), "--data", str(streets), *SMALL],
        env={**os.environ, **JOB, "PATH": str(programs), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = run.step("train").read_result()
    assert result.status == "completed"
    if job is None:
        assert result.job["cluster"] == "local"
        assert result.machine["ranks"] == (2 if "--nodes" in command else 1)
    else:
        assert result.job == job
