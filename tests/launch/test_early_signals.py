"""The warning of a time limit at any moment of a process's life, from its first millisecond on: never fatal, never
lost. Real processes and signals; the ranks' work alone is a stand-in, but for the last test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.record.run_json import Job, JobSpec, Step, write_spec
from segdist.run.exit_codes import TO_BE_CONTINUED
from segdist.run.folder import RunFolder

from .early import ROOT, environ_without_torch, warned_at

pytestmark = pytest.mark.slow


NOW = "2026-01-31T12:00:00Z"


def spread(count: int, seconds: float) -> list[float]:
    """So many moments from the first millisecond on, closer to each other at the start."""
    return [0.0, *(seconds * (k / (count - 1)) ** 1.5 for k in range(1, count))]


def test_a_launcher_saves_whenever_it_is_warned(tmp_path: Path) -> None:
    runs = [tmp_path / f"run{k}" for k in range(14)]
    commands = [[sys.executable, "-m", "segdist.launch", "train", "--run", str(run)] for run in runs]
    ends = warned_at(spread(14, 1.6), commands, environ_without_torch(tmp_path))
    assert [code for code, _ in ends] == [TO_BE_CONTINUED] * 14, ends
    for run in runs:
        assert (run / "saved0").read_text() == "SIGUSR1"
        assert not RunFolder(run).step("train").result_json.exists()


def test_a_rank_saves_whenever_it_is_warned(tmp_path: Path) -> None:
    runs = [tmp_path / f"run{k}" for k in range(20)]
    for run in runs:
        run.mkdir()
    commands = [[sys.executable, "-m", "segdist", "train", "--run", str(run)] for run in runs]
    ends = warned_at(spread(20, 1.0), commands, environ_without_torch(tmp_path))
    assert [code for code, _ in ends] == [TO_BE_CONTINUED] * 20, ends
    assert {(run / "saved0").read_text() for run in runs} == {"SIGUSR1"}


def test_a_runner_has_its_step_save_whenever_it_is_warned(tmp_path: Path) -> None:
    commands = []
    runs = [RunFolder(tmp_path / f"run{k}") for k in range(6)]
    for run in runs:
        config = run.step("train").config_json
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"run": str(run.path)}))
        launcher = (sys.executable, "-m", "segdist.launch", "--starter", "local", "train", "--config", str(config))
        step = Step("train", "train", "train", 1, 1, launcher)
        (run.path / "files").mkdir()
        job = Job("slurm", "11", "n1", ("train",), "files")
        spec = JobSpec(
            str(run.path), "train", NOW, (), str(tmp_path), {}, {}, (step,), {}, "files", "slurm", (job,)
        )  # fmt: skip
        write_spec(run.run_json, spec)
        code = "import sys; from jobs.runner import run_steps; run_steps(sys.argv[1])"
        commands.append([sys.executable, "-c", code, str(run.path)])
    environ = {
        "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "11", "SLURM_JOB_NODELIST": "n1", "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_LOCALID": "0", "SLURM_PROCID": "0",
    }  # fmt: skip
    ends = warned_at(spread(6, 2.5), commands, {**environ_without_torch(tmp_path), **environ})
    assert [code for code, _ in ends] == [TO_BE_CONTINUED] * 6, ends
    assert {(run.path / "saved0").read_text() for run in runs} == {"SIGUSR1"}


@pytest.mark.skipif(
    subprocess.run(["env", "--block-signal=USR1", "true"], capture_output=True, check=False).returncode != 0,
    reason="env is older than coreutils 8.31",
)
def test_a_script_by_hand_saves_where_the_warning_comes_while_python_starts(tmp_path: Path, streets: Path) -> None:
    run = RunFolder(tmp_path / "run")
    options = (
        "--data", str(streets), "--model", "unet", "--width", "4", "--crop", "64x128", "--batch", "2", "--workers", "0",
        "--epochs", "500", "--check", "headers",
    )  # fmt: skip
    own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PBS_", "SEGDIST_"))}
    process = subprocess.Popen(
        ["bash", str(ROOT / "slurm" / "train.sbatch"), "--run", str(run.path), *options],
        env={**own, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        python = os.fsencode(f"{sys.executable}\0-m\0segdist.launch\0")  # and bash and env no more
        while process.poll() is None and not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(python):
            os.sched_yield()
        process.send_signal(signal.SIGUSR1)
        output = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode == TO_BE_CONTINUED, output
    assert "stopped on SIGUSR1 after step 1 of" in output
    assert (run.step("train").checkpoints / "last.pt").exists()
