"""Two launches on one run folder, as the elements of an array job that forgot to give each its own: real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segdist.run.folder import RunFolder
from segdist.run.lease_owner import read_owner

from .local_launcher import DEADLINE, ROOT

pytestmark = pytest.mark.slow
RANK = """
import os, sys
from pathlib import Path
from segdist.config import TrainConfig
from segdist.run.folder import RunFolder
from segdist.run.result import Result, job_of, utc_now
run = Path(sys.argv[1])
os.write(1, b"begins\\n")
with open(run.parent / "begun", "w") as begun:  # a FIFO
    begun.write("begun")
open(run.parent / "go").read()
step = RunFolder(run).step(sys.argv[2], "fp32")
step.write_result(Result(step.task, step.name, "completed", utc_now(), job=job_of(os.environ), metrics={"n": 1}))
"""
DRIVER = """
import sys
from segdist.launch import __main__ as launcher
run, program, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
plan = launcher.plan_step
launcher.plan_step = lambda o, step, c, a: plan(o, step, (sys.executable, program, run, step.task), a)
sys.exit(launcher.main(argv))
"""


class Site:
    """A run folder, and elements of an array job that are launched on it."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.run = RunFolder(folder / "run")
        self.step = self.run.step("train")
        self._folder = folder
        self._scheduler = scheduler
        self._started: list[subprocess.Popen[str]] = []
        (folder / "rank.py").write_text(RANK)
        (folder / "nodes").write_text(f"{socket.gethostname()}\n")
        (folder / "bin").mkdir()
        for name in ("begun", "go"):
            os.mkfifo(folder / name)

    def launch(self, index: int, task: str = "train") -> subprocess.Popen[str]:
        """Start the launcher of one element."""
        if self._scheduler == "slurm":
            job = {
                "SLURM_JOB_ID": str(13 + index), "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": str(index),
                "SLURM_JOB_NODELIST": socket.gethostname(),
            }  # fmt: skip
        else:
            job = {"PBS_JOBID": f"12[{index}].srv", "PBS_NODEFILE": str(self._folder / "nodes")}
        own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "PBS_", "SEGDIST_"))}
        command = [sys.executable, "-c", DRIVER, str(self.run.path), str(self._folder / "rank.py")]
        process = subprocess.Popen(
            [*command, task, "--run", str(self.run.path)],
            env={**own, "PATH": str(self._folder / "bin"), "PYTHONPATH": str(ROOT), **job},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def wait_for_rank(self) -> None:
        """Until a rank is at work."""
        assert (self._folder / "begun").read_text() == "begun"
        end = time.monotonic() + DEADLINE
        while self.step.rank_log(0).read_text() != "begins\n":  # on its way through the launcher
            assert time.monotonic() < end, "its output has not come"
            time.sleep(0.01)

    def let_go(self) -> None:
        """Let the rank that waits end well."""
        (self._folder / "go").write_text("go")

    def files(self) -> dict[str, bytes]:
        """Every file of the run but the heartbeats, which go on."""
        found = (path for path in self.run.path.rglob("*") if path.is_file() and "holder.beat" not in path.name)
        return {str(path): path.read_bytes() for path in found}

    def close(self) -> None:
        """End what is left."""
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture(params=["slurm", "pbs"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path, request.param)
    yield one
    one.close()


def test_the_second_element_touches_no_file_of_the_first(site: Site) -> None:
    first = site.launch(0)
    site.wait_for_rank()  # which has no lease of its own yet, as a real one that loads torch
    assert read_owner(site.step) is None
    before = site.files()
    second = site.launch(1)
    _, err = second.communicate(timeout=DEADLINE)
    assert second.returncode == 2
    assert err.startswith(f"error: {site.step.logs}: job 12_0 of ")
    assert err.endswith(" is at work on it; wait for it, cancel it or give another --run\n")
    assert err.count("\n") == 1
    assert site.files() == before
    site.let_go()
    assert first.wait(DEADLINE) == 0
    assert site.step.read_result().job["id"] == "12_0"
    assert site.step.rank_log(0).read_text() == "begins\n"
    assert not (site.step.logs / "rank0.log.1").exists()
    assert not (site.step.logs / "holder.json").exists()


def test_of_two_that_start_at_once_one_works_and_one_is_refused(site: Site) -> None:
    both = [site.launch(0), site.launch(1)]
    site.wait_for_rank()
    loser = next(process for process in _in_order_of_their_end(both))
    assert loser.returncode == 2
    site.let_go()
    assert sorted(process.wait(DEADLINE) for process in both) == [0, 2]
    assert site.step.read_result().status == "completed"
    assert site.step.rank_log(0).read_text() == "begins\n"
    assert not (site.step.logs / "rank0.log.1").exists()


def test_a_pipeline_beside_another_writes_nothing(site: Site) -> None:
    first = site.launch(0, "pipeline")
    site.wait_for_rank()
    before = site.files()
    second = site.launch(1, "pipeline")
    _, err = second.communicate(timeout=DEADLINE)
    assert second.returncode == 2
    assert err.startswith(f"error: {site.run.path}: job 12_0 of ")
    assert site.files() == before
    third = site.launch(2)  # one step of what the pipeline is at work on
    assert third.wait(DEADLINE) == 2
    assert site.files() == before
    first.kill()


def test_a_pipeline_leaves_a_step_alone_on_which_another_job_works(site: Site) -> None:
    first = site.launch(0)
    site.wait_for_rank()
    before = site.files()
    second = site.launch(1, "pipeline")
    _, err = second.communicate(timeout=DEADLINE)
    assert second.returncode == 2
    assert f"error: {site.step.logs}: job 12_0 of " in err
    assert site.files() == before
    site.let_go()
    assert first.wait(DEADLINE) == 0


def _in_order_of_their_end(processes: list[subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    waiting = {process.pid: process for process in processes}
    while waiting:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert info is not None
        process = waiting.pop(info.si_pid)
        process.wait()
        yield process
