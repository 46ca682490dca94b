"""A rank of one machine fails: it is named, its exit code is the launcher's, and the others are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.run.result import utc_now

from .local_launcher import DEADLINE, ROOT, Launcher, last_line, pid_of

pytestmark = pytest.mark.slow  # trains, or starts many processes


def test_a_failing_rank_is_named_and_the_waiting_ones_are_terminated(tmp_path: Path) -> None:
    script = """
if rank == 1:
    sys.exit(print("before\\nValueError: no such label") or 7)
ready()
pause()
"""
    job = {"SEGDIST_JOB_CLUSTER": "local", "SEGDIST_JOB_ID": "42"}
    started = utc_now()
    with Launcher(tmp_path, script, ranks_per_node=3, grace=0.3, environment=job) as launcher:
        code, _, err = launcher.end()
    log = launcher.step.rank_log(1)
    assert code == 7
    assert "rank 1 ended with exit code 7; waiting 0.3 s for ranks 0, 2 to end" in err
    assert "ranks 0, 2 did not end in time; sending SIGTERM" in err
    assert "SIGKILL" not in err
    assert err.splitlines()[-4:] == [
        f"segdist.launch: the last lines of {log}:",
        "  | before",
        "  | ValueError: no such label",
        f"error: rank 1 ended with exit code 7; log: {log}",
    ]
    result = launcher.step.read_result()
    assert (result.task, result.name, result.status) == ("train", "train", "failed")
    assert result.error == "rank 1 ended with exit code 7: ValueError: no such label"
    assert result.log == str(log)
    assert result.job == {"cluster": "local", "id": "42"}
    assert result.ended_at is not None
    assert started <= result.started_at <= result.ended_at <= utc_now()
    assert result.elapsed_s is not None
    assert 0.3 <= result.elapsed_s < DEADLINE


def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace_time_again(tmp_path: Path) -> None:
    script = """
if rank == 1:
    wait_for_go(1)
    sys.exit(7)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready()
pause()
"""
    with Launcher(tmp_path, script, grace=0.2) as launcher:
        launcher.alive.wait_for_lines(1)
        launcher.go(1)
        code, _, err = launcher.end()
    assert code == 7
    assert err.index("rank 0 did not end in time; sending SIGTERM") < err.index("sending SIGKILL")
    assert last_line(err).startswith("error: rank 1 ended with exit code 7;")


def test_ranks_that_end_by_themselves_in_the_grace_time_do_not_hide_the_first(tmp_path: Path) -> None:
    script = """
if rank == 2:
    sys.exit("MemoryError: rank 2 is the cause")
wait_for_go(rank)
sys.exit("ConnectionResetError: by peer")
"""
    with Launcher(tmp_path, script, ranks_per_node=3) as launcher:
        assert launcher.process.stderr is not None
        assert b"rank 2 ended with exit code 1; waiting" in launcher.process.stderr.readline()
        launcher.go(0)
        launcher.go(1)
        code, _, err = launcher.end()
    assert code == 1
    assert "sending" not in err
    assert last_line(err).startswith("error: rank 2 ended with exit code 1;")
    assert launcher.step.read_result().error == ("rank 2 ended with exit code 1: MemoryError: rank 2 is the cause")


def test_a_killed_rank_gives_137_and_a_result(tmp_path: Path) -> None:
    with Launcher(tmp_path, "ready('pid', os.getpid()); pause()", nodes=2, grace=0.1) as launcher:
        os.kill(pid_of(launcher.alive.wait_for_lines(4), 2), signal.SIGKILL)
        code, _, err = launcher.end()
    assert code == 137
    assert "memory has run out" in err
    log = launcher.step.rank_log(2)
    assert last_line(err) == f"error: rank 2 was killed by SIGKILL; exit code 137; log: {log}"
    assert launcher.step.read_result().error == "rank 2 was killed by SIGKILL"


def test_a_crash_in_native_code_gives_its_signal(tmp_path: Path) -> None:
    with Launcher(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)", ranks_per_node=1) as launcher:
        code, _, err = launcher.end()
    assert code == 139
    assert last_line(err).startswith("error: rank 0 was killed by SIGSEGV; exit code 139;")


def test_a_rank_ends_with_its_exit_code_though_a_thread_is_in_the_store() -> None:
    code = """
import datetime, threading
from segdist.__main__ import end_process
from torch.distributed import DistStoreError, TCPStore

store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
started = threading.Event()

def watch():
    while True:
        try:
            started.set()
            store.wait(["never"], datetime.timedelta(seconds=0.02))
        except DistStoreError:
            continue

for _ in range(8):
    threading.Thread(target=watch, daemon=True).start()
started.wait()
print("done")
end_process(7)
"""
    environ = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (7, "done\n"), done.stderr
