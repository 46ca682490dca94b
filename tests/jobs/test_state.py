"""What is true about a run, also when its job was killed, and who is asked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.record.processes import is_alive, process_started, this_process
from jobs.record.run_json import Job, read_spec
from jobs.state.find import find_runs
from jobs.state.model import derive_states
from segdist.config import ConfigError
from segdist.run.folder import RunFolder
from segdist.run.result import Result

from .conftest import Cluster, wait_until

pytestmark = pytest.mark.slow  # trains, or starts many processes

DONE = Result("train", "train", "completed", "2026-01-31T12:00:00Z")
BAD = Result("train", "train", "failed", "2026-01-31T12:00:00Z")


@pytest.mark.parametrize(
    ("results", "started", "alive", "states"),
    [
        ([None, None], [False, False], True, ["waiting", "waiting"]),
        ([None, None], [True, False], True, ["running", "waiting"]),
        ([DONE, None], [True, True], True, ["completed", "running"]),
        ([DONE, None], [True, False], True, ["completed", "waiting"]),
        ([DONE, None, None], [True, True, False], False, ["completed", "failed", "skipped"]),
        ([None, None], [False, False], False, ["failed", "skipped"]),
        ([BAD, None], [True, False], False, ["failed", "skipped"]),
        ([DONE, None, None], [True, True, False], None, ["completed", "unknown", "waiting"]),
        ([DONE, BAD], [True, True], None, ["completed", "failed"]),
    ],
)
def test_states_follow_from_the_results_and_the_job(
    results: list[Result | None], started: list[bool], alive: bool | None, states: list[str]
) -> None:
    assert derive_states(results, started, alive) == states


def test_a_process_is_known_by_its_start() -> None:
    own = this_process()
    pid, started = own.pid, own.pid_started
    job = Job("local", "1", socket.gethostname(), (), "", pid=pid, pid_started=started)
    assert is_alive(job) is True
    assert is_alive(Job("local", "1", socket.gethostname(), (), "", pid=pid, pid_started=started + "1")) is False
    assert is_alive(Job("local", "1", "node7.example", (), "", pid=pid, pid_started=started)) is None


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_started(child.pid) is None
    child.wait()
    assert process_started(child.pid) is None


@pytest.mark.parametrize("victim", ["submitit.local._local", "submitit.core._submit"])
def test_a_killed_job_has_failed_and_leaves_nothing_running(cluster: Cluster, victim: str) -> None:
    cluster.start_hanging("r", "pipeline")
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in cluster.processes("r")}
    assert len(commands) == 5  # controller, runner, launcher and two ranks
    os.kill(next(pid for pid, command in commands.items() if victim in command), signal.SIGKILL)
    wait_until(lambda: not cluster.state("r").alive, 5)
    wait_until(lambda: not cluster.processes("r"), 5)
    states = cluster.states("r")
    assert states.pop("train") == "failed"
    assert set(states.values()) == {"skipped"}
    train = cluster.state("r").steps[0]
    assert train.error in (
        f"the job is gone: job {read_spec(Path('r/run.json')).jobs[0].id} on {socket.gethostname()} ended "
        f"without a result; see {read_spec(Path('r/run.json')).jobs[0].submitit_folder}",
        "stopped by SIGTERM",
    )
    assert (train.error == "stopped by SIGTERM") == (victim == "submitit.local._local")
    assert cluster.state("r").exit_code in (1, 143)


def test_runs_are_found_below_a_folder_and_foreign_folders_are_not(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a" / "b").step("train").write_result(DONE)
    (tmp_path / "cityscapes" / "leftImg8bit" / "train").mkdir(parents=True)
    assert find_runs([tmp_path]) == [tmp_path / "a" / "b"]
    assert find_runs([tmp_path / "a" / "b", tmp_path]) == [tmp_path / "a" / "b"]
    with pytest.raises(ConfigError) as refused:
        find_runs([tmp_path / "cityscapes"])
    assert str(refused.value) == (f"{tmp_path}/cityscapes: holds no run; give a run folder, or one that holds runs")
    with pytest.raises(ConfigError, match="nowhere: is no folder; give a run folder"):
        find_runs([tmp_path / "nowhere"])
