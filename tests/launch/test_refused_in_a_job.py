"""What a launch inside a job refuses before ranks run: one line, an exit code, and a failed result with the reason."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.run.folder import RunFolder
from segdist.run.result import Result

from .local_launcher import DEADLINE, ROOT

HOST = socket.gethostname()
NO_OVERRIDE = (
    "setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search",
)  # fmt: skip


def launch(run: Path, *prefix: str, task: str = "train", **environ: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PBS_", "SEGDIST_"))}
    return subprocess.run(
        [*prefix, sys.executable, "-m", "segdist.launch", task, "--run", str(run)],
        env={**own, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"SLURM_JOB_NODELIST": HOST, "MASTER_PORT": "99999"}, "MASTER_PORT='99999': must be a port from 1 to 65535"),
        ({"SLURM_JOB_NODELIST": "n[1-"}, "SLURM_JOB_NODELIST='n[1-': is no list of nodes"),
        ({"SLURM_JOB_NODELIST": "n[1-2]", "PATH": "/nowhere"}, "srun: is not on PATH, and job 7 has ranks on 2 nodes"),
        ({"SLURM_JOB_NODELIST": HOST, "SLURM_RESTART_COUNT": "x"}, "SLURM_RESTART_COUNT='x': must be a whole number"),
        ({"SLURM_JOB_NODELIST": HOST, "SLURM_STEP_NUM_TASKS": "3"}, "SLURM_STEP_NUM_TASKS=3: srun has started the"),
        ({"PBS_JOBID": "7.srv", "PBS_NODEFILE": "/nowhere"}, "PBS_NODEFILE='/nowhere': cannot be read"),
        ({"PBS_JOBID": "7.srv"}, "PBS_NODEFILE='': cannot be read"),
        ({"PBS_JOBID": "7.srv", "PBS_NODEFILE": "/dev/null"}, "PBS_NODEFILE='/dev/null': has no line"),
        ({"PBS_JOBID": "seven", "PBS_NODEFILE": "/dev/null"}, "PBS_NODEFILE='/dev/null': has no line"),
    ],
)
@pytest.mark.parametrize("task", ["train", "pipeline"])
def test_a_refusal_is_the_steps_failed_result(tmp_path: Path, environ: dict[str, str], error: str, task: str) -> None:
    job = {} if "PBS_JOBID" in environ else {"SLURM_JOB_ID": "7"}
    done = launch(tmp_path / "run", task=task, **job, **environ)
    assert done.returncode == 2
    assert f"error: {error}" in done.stderr
    assert "Traceback" not in done.stderr
    result = RunFolder(tmp_path / "run").step("train").read_result()
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.startswith(error)


def test_a_result_that_is_there_is_not_replaced_by_a_refusal(tmp_path: Path) -> None:
    step = RunFolder(tmp_path / "run").step("train")
    step.path.mkdir(parents=True)
    step.write_result(Result("train", "train", "completed", "2026-01-01T00:00:00Z", metrics={"n": 1}))
    done = launch(tmp_path / "run", PBS_JOBID="7.srv", PBS_NODEFILE="/nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: PBS_NODEFILE='/nowhere': ")
    assert step.read_result().status == "completed"


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write everywhere")
@pytest.mark.parametrize(("closed", "mode"), [("", 0o555), ("run", 0o555), ("run/train", 0o555), ("run/train", 0o000)])
def test_a_run_folder_that_may_not_be_written_is_one_line(tmp_path: Path, closed: str, mode: int) -> None:
    folder = tmp_path / "site" / closed
    folder.mkdir(parents=True)
    folder.chmod(mode)
    prefix = NO_OVERRIDE if os.geteuid() == 0 else ()
    done = launch(tmp_path / "site" / "run", *prefix, SLURM_JOB_ID="7", SLURM_JOB_NODELIST=HOST, PATH="/usr/bin:/bin")
    folder.chmod(0o755)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/site/")
    assert "ermission denied" in done.stderr
