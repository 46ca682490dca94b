"""The launcher is sent a signal, or killed: real processes, real signals."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from segdist.launch.__main__ import main

from .local_launcher import DEADLINE, Launcher, last_line

pytestmark = pytest.mark.slow  # trains, or starts many processes


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_reaches_every_rank(tmp_path: Path, number: signal.Signals, expected: int) -> None:
    script = "signal.signal(signal.SIGINT, signal.SIG_DFL); ready(); pause()"
    with Launcher(tmp_path, script) as launcher:
        launcher.alive.wait_for_lines(2)
        launcher.process.send_signal(number)
        code, _, err = launcher.end()
    assert code == expected
    assert f"was sent {number.name}; passing it on to ranks 0, 1" in err
    assert f"was killed by {number.name} after the launcher was sent {number.name}; exit code" in last_line(err)
    assert launcher.step.read_result().status == "failed"


def test_a_rank_that_does_not_heed_a_stop_signal_is_killed_and_the_code_is_the_signals(
    tmp_path: Path,
) -> None:
    script = """
signal.signal(signal.SIGTERM, signal.SIG_IGN if rank else lambda *_: sys.exit(0))
ready()
pause()
"""
    with Launcher(tmp_path, script, grace=1.0) as launcher:
        launcher.alive.wait_for_lines(2)
        launcher.process.terminate()
        code, _, err = launcher.end()
    assert code == 143
    assert last_line(err).startswith(
        "error: rank 1 was killed by SIGKILL after the launcher was sent SIGTERM, which the rank did not heed"
    )


def test_ranks_that_save_their_work_after_a_stop_signal_end_well(tmp_path: Path) -> None:
    script = """
def save(*_):
    if rank == 0:
        write_result()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
ready()
pause()
"""
    with Launcher(tmp_path, script) as launcher:
        launcher.alive.wait_for_lines(2)
        launcher.process.terminate()
        assert launcher.end()[0] == 0


def test_usr1_reaches_every_rank_and_nothing_else_follows(tmp_path: Path) -> None:
    script = """
signal.signal(signal.SIGUSR1, lambda *_: ready("has USR1"))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
ready()
wait_for_go(rank)
if rank == 0:
    write_result()
"""
    with Launcher(tmp_path, script, grace=0.0) as launcher:
        launcher.alive.wait_for_lines(2)
        launcher.process.send_signal(signal.SIGUSR1)
        lines = launcher.alive.wait_for_lines(4)
        launcher.go(0)
        launcher.go(1)
        code, _, err = launcher.end()
    assert lines == ["rank 0", "rank 0 has USR1", "rank 1", "rank 1 has USR1"]
    assert code == 0
    assert err == "segdist.launch: was sent SIGUSR1; passing it on to ranks 0, 1\n"


def test_usr1_waits_until_a_rank_that_is_only_starting_has_its_handler(tmp_path: Path) -> None:
    script = """
import threading
came = threading.Event()
def handle(*_):
    ready("has USR1")
    came.set()
ready()
wait_for_go(rank)
signal.signal(signal.SIGUSR1, handle)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
came.wait(60)
if rank == 0:
    write_result()
"""
    with Launcher(tmp_path, script, grace=0.0) as launcher:
        launcher.alive.wait_for_lines(2)
        launcher.process.send_signal(signal.SIGUSR1)
        assert launcher.process.stderr is not None
        assert b"passing it on to ranks 0, 1" in launcher.process.stderr.readline()
        launcher.go(0)
        launcher.go(1)
        code, _, _ = launcher.end()
        assert launcher.alive.wait_for_lines(4) == ["rank 0", "rank 0 has USR1", "rank 1", "rank 1 has USR1"]
    assert code == 0


def test_no_rank_outlives_a_killed_launcher(tmp_path: Path) -> None:
    script = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
ready()
pause()
"""
    with Launcher(tmp_path, script, nodes=2) as launcher:
        launcher.alive.wait_for_lines(4)
        launcher.process.kill()
        assert launcher.process.wait(DEADLINE) == -signal.SIGKILL
        launcher.alive.wait_until_nobody_lives()


def test_signal_handlers_are_as_before_after_a_launch(tmp_path: Path, rank_program: list[str]) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    assert main(["train", "--run", str(tmp_path / "run")], rank_program) == 0
    assert [signal.getsignal(number) for number in numbers] == before
