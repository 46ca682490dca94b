"""Real jobs of the local cluster, with ``stand_in.py`` in the place of the launcher and its ranks."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.planning.steps import Commands
from jobs.record import heartbeat
from jobs.record.processes import job_processes
from jobs.record.run_json import Job, JobSpec, Step, read_spec, write_spec
from jobs.state.model import RunState
from jobs.state.read import read_run
from jobs.submit import main

ROOT = Path(__file__).parents[2]
STAND_IN = str(Path(__file__).with_name("stand_in.py"))
COMMANDS = Commands((sys.executable, STAND_IN), (sys.executable, STAND_IN, "report"))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs start in another folder, and find the packages without their being installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


@contextlib.contextmanager
def beating(job_folder: Path) -> Iterator[None]:
    """The heartbeat of a job that cannot be looked for from here, as its runner writes it, but quickly."""
    job_folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
        with heartbeat.heartbeat(job_folder):
            wait_until(heartbeat.heartbeat_path(job_folder).exists)
            yield


def write_run(run: str, host: str, pid: int, started: str) -> None:
    """A run folder of which that process is said to be at work."""
    step = Step("train", "train", "train", 1, 1, ("launch",))
    job = Job("local", "77", host, ("train",), ".submitit/1", pid=pid, pid_started=started, token="token")
    spec = JobSpec(run, "train", "2026-01-31T12:00:00Z", (), "/", {}, {}, (step,), {}, ".submitit/1", "local", (job,))
    write_spec(Path(run, "run.json"), spec)


class Cluster:
    """Submits in this process; the job runs in its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def submit(self, *argv: str, stand_in: str = "") -> int:
        """``python -m jobs.submit`` with the stand-in behaving as told; returns the exit code."""
        self._monkeypatch.setenv("STAND_IN", stand_in)
        return main([argv[0], "--cluster", "local", *argv[1:]], COMMANDS)

    def state(self, run: str) -> RunState:
        """The run's state as a reader sees it."""
        return read_run(Path(run))

    def states(self, run: str) -> dict[str, str]:
        """Step → state."""
        return {step.step: step.state for step in self.state(run).steps}

    def processes(self, run: str) -> list[int]:
        """The living processes of the run's job."""
        return job_processes(read_spec(Path(run) / "run.json").jobs[0].token)

    def start_hanging(self, run: str, *argv: str, how: str = "hang") -> None:
        """Submit a training on 2 x 1 ranks that does not end by itself; return when both are at work."""
        argv = argv or ("train",)
        assert self.submit(*argv, "--run", run, "--nodes", "2", stand_in=f"train={how}") == 0
        logs = [Path(run, "train", "logs", f"rank{rank}.log") for rank in (0, 1)]
        wait_until(lambda: all(log.exists() and "begins" in log.read_text() for log in logs))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """An empty working folder; whatever its jobs leave running is ended after the test."""
    monkeypatch.chdir(tmp_path)
    yield Cluster(tmp_path, monkeypatch)
    for record in tmp_path.glob("**/run.json"):
        if "token" in record.read_text():
            for pid in job_processes(read_spec(record).token):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
