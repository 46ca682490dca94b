"""A real Slurm of four nodes, started once for all tests that want it, and commands as a user gives them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.record.run_json import read_spec
from segdist.run.folder import RunFolder

from .lab import SlurmLab, fresh, missing

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    "--width", "4", "--crop", "64x128", "--batch", "4", "--workers", "0", "--ipex", "off", "--precision", "fp32",
    "--check", "headers",
)  # fmt: skip
MEASURED = (
    "--sizes", "64x128", "--tuning-size", "64x128", "--latency-runs", "2", "--max-trials", "1", "--allow-miss",
    "--calibration-images", "4",
)  # fmt: skip
TRUTH_S = 30.0
"""Seconds in which jobs.status must say what is true."""


class Cluster:
    """Commands on the login node of the lab, with run folders on storage that all nodes share."""

    def __init__(self, lab: SlurmLab, folder: Path, streets: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.data = ("--data", str(streets))
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))},
            **lab.environment,
            "PYTHONPATH": str(ROOT),
            "PYTHON": sys.executable,
        }

    def call(
        self, *command: str, timeout: float = 280, cwd: str | Path = ROOT, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            list(map(str, command)), env={**self._environ, **more}, cwd=cwd, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip

    def python(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """``python -m …``."""
        return self.call(sys.executable, "-m", *arguments, **more)

    def submit(self, task: str, name: str, *options: str, small: Sequence[str] = SMALL, **more: str) -> RunFolder:
        """Submit with ``--cluster auto``, which finds Slurm; returns the run."""
        run = RunFolder(self.folder / name)
        done = self.python("jobs.submit", task, "--run", str(run.path), *self.data, *small, *options, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "cluster: slurm (sbatch is on PATH)" in done.stdout
        return run

    def sbatch(self, *arguments: str, seconds: float = 120) -> int:
        """Submit a script by hand, wait for its end, and return its exit code (``sbatch --wait`` looks too seldom)."""
        done = self.call("sbatch", "--parsable", *arguments)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        until(
            lambda: self.queue(job, "State") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), seconds, "the job ends"
        )
        return int(re.findall(r" ExitCode=(\d+):", self.lab.output("scontrol", "--oneliner", "show", "job", job))[0])

    def status(self, run: RunFolder) -> dict[str, dict[str, Any]]:
        """What jobs.status says of each step."""
        done = self.python("jobs.status", str(run.path), "--format", "json")
        assert done.returncode == 0, done.stderr
        return {row["step"]: row for row in json.loads(done.stdout)}

    def states(self, run: RunFolder) -> dict[str, str]:
        """Step → state."""
        return {step: row["state"] for step, row in self.status(run).items()}

    def job(self, run: RunFolder, step: str = "train") -> str:
        """The id of a step's job."""
        return read_spec(run.run_json).job_of(step).id

    def queue(self, job: str, field: str) -> str:
        """One field of squeue for a job."""
        return self.lab.output(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", f"--Format={field}:60"
        ).strip()

    def ranks(self, job: str, rank: int | None = None) -> list[int]:
        """Pids, as the machine sees them, of the training ranks of a job."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environ = dict(
                    pair.split(b"=", 1) for pair in (entry / "environ").read_bytes().split(b"\0") if b"=" in pair
                )
            except (OSError, ValueError):
                continue
            if b"segdist" not in words or words[0].endswith(b"srun") or environ.get(b"SLURM_JOB_ID") != job.encode():
                continue
            if rank is None or environ.get(b"SLURM_PROCID") == str(rank).encode():
                found.append(int(entry.name))
        return found

    def kill(self, job: str, rank: int) -> None:
        """SIGKILL for one rank."""
        (pid,) = self.ranks(job, rank)
        os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until a condition holds; returns the seconds it took, and fails with ``what`` where it does not."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(0.25)
    return time.monotonic() - start


def epochs(run: RunFolder) -> list[int]:
    """The epochs in metrics.jsonl."""
    file = run.step("train").metrics_jsonl
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line)["epoch"] for line in lines]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmLab]:
    """The cluster; where it cannot run, the tests that want it are skipped with the reason."""
    why = missing()
    if why is not None:
        pytest.skip(f"no Slurm cluster here: {why}")
    with fresh(Path(f"/tmp/sl{os.getpid()}")) as lab:
        yield lab


@pytest.fixture
def cluster(lab: SlurmLab, tmp_path: Path, streets: Path) -> Iterator[Cluster]:
    """Four idle nodes and an empty folder; whatever a test leaves in the queue is cancelled."""
    yield Cluster(lab, tmp_path, streets)
    lab.output("scancel", "--user=root")
    for number in range(1, lab.nodes + 1):
        lab.restore(f"n{number}")
    until(lambda: lab.idle_nodes() == lab.nodes, 60, "all nodes are idle")
