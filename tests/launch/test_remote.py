"""Ranks on "other nodes": real agents and ranks, started by real commands that behave like the starters of a site."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .remote_launcher import DEADLINE, ROOT, RemoteLauncher, path_with, program

pytestmark = pytest.mark.slow  # trains, or starts many processes

Start = Callable[..., RemoteLauncher]


def test_a_rank_gets_environment_folder_umask_and_its_numbers(launch: Start) -> None:
    script = """
mask = os.umask(0)
seen = dict(cwd=os.getcwd(), mask=mask, odd=os.environ["ODD"], tmp=os.environ.get("TMPDIR"), sid=os.getsid(0))
with open(f"{out}/seen{rank}.json", "w") as file: json.dump(seen, file)
print("hello from", rank)
"""
    umask = os.umask(0o022)
    os.umask(umask)
    odd = "a 'quoted' \"value\" with $HOME, spaces\nand lines"
    job = launch(script, "with space", ODD=odd, TMPDIR="/somewhere/else")
    code, out, err = job.end()
    assert code == 0, err
    assert out == "hello from 0\n"
    for rank in range(4):
        seen = json.loads((job.folder / f"seen{rank}.json").read_text())
        assert seen["cwd"] == str(Path.cwd())
        assert seen["odd"] == odd
        assert seen["mask"] == umask
        assert seen["sid"] == os.getsid(0), "a session of its own would escape the scheduler's kill"
        assert (job.folder / f"rank{rank}.log").read_text() == f"hello from {rank}\n"
    assert not (job.folder / "talk").exists()


def test_the_first_failing_rank_decides_the_exit_code(launch: Start) -> None:
    script = "ready('up')\nif rank == 3: sys.exit(7)\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\npause()"
    job = launch(script, grace=0.5)
    code, _, err = job.end()
    assert code == 7
    assert "rank 3 ended with exit code 7" in err.splitlines()[-1]


def test_ranks_deaf_to_term_are_killed_and_so_are_their_children(launch: Start) -> None:
    script = """
if rank == 0:
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    pause()
pause()
"""
    job = launch(script, grace=0.5)
    code, _, err = job.end()
    assert code == 137
    assert "rank 0 was killed by SIGKILL" in err


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_launcher_reaches_every_rank(launch: Start, number: signal.Signals, exit_code: int) -> None:
    script = """
def stop(number, frame):
    ready('got', number)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
ready('up')
pause()
"""
    job = launch(script)
    job.alive.wait_for_lines(4)
    job.process.send_signal(number)
    assert sum(f"got {int(number)}" in line for line in job.alive.wait_for_lines(8)) == 4
    assert job.end()[0] == exit_code


def test_usr1_asks_to_save_and_nothing_else_follows(launch: Start) -> None:
    script = """
signal.signal(signal.SIGUSR1, lambda *_: ready('save'))
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
ready('up')
signal.pause()
time.sleep(1.0)
sys.exit(75)
"""
    job = launch(script, grace=0.1)
    job.alive.wait_for_lines(4)
    job.process.send_signal(signal.SIGUSR1)
    job.alive.wait_for_lines(8)
    assert job.end()[0] == 75


def test_no_rank_outlives_a_killed_launcher(launch: Start, bin_folder: Path) -> None:
    # pbs_tmrsh passes nothing on: its task is no child of it. The agents miss the launcher's heartbeat.
    program(bin_folder, "pbs_tmrsh", 'shift\nsetsid --wait "$@"\n')
    job = launch("ready('up')\npause()", starter="pbs_tmrsh", grace=0.5, PATH=path_with(bin_folder))
    job.alive.wait_for_lines(4)
    job.process.kill()
    job.alive.wait_until_nobody_lives()


def test_ranks_started_by_ssh_end_with_the_connection(launch: Start, bin_folder: Path) -> None:
    # sshd starts what it is told to in a session of its own, which survives the client; only its pipes close.
    program(bin_folder, "ssh", 'for last; do :; done\nsetsid --wait bash -c "$last"\n')
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready('up')\npause()"
    job = launch(script, "job $x 'y'", starter="ssh", grace=0.5, PATH=path_with(bin_folder))
    job.alive.wait_for_lines(4)
    job.process.kill()
    job.alive.wait_until_nobody_lives()


def test_a_starter_that_says_0_hides_no_failure(launch: Start, bin_folder: Path) -> None:
    program(bin_folder, "pbsdsh", 'test "$1" = -h || exit 9\nshift 2\nenv -i "$@"\nexit 0\n')
    job = launch("sys.exit(5 if rank == 2 else 0)", starter="pbsdsh", PATH=path_with(bin_folder))
    assert job.end()[0] == 5


def test_a_rank_that_left_no_exit_code_is_lost_whatever_the_starter_says(launch: Start, bin_folder: Path) -> None:
    program(bin_folder, "pbsdsh", 'test "$2" = node1 && exit 0\nshift 2\nexec "$@"\n')
    job = launch("ready('up')\npause()", per_node=1, starter="pbsdsh", grace=0.5,
                    PATH=path_with(bin_folder))  # fmt: skip
    code, _, err = job.end()
    assert code == 1
    assert "rank 1 on node1 is lost: pbsdsh ended with 0, and the rank left no exit code" in err


def test_a_silent_node_loses_its_ranks(tmp_path: Path, launch: Start, bin_folder: Path) -> None:
    program(bin_folder, "pbs_tmrsh", 'host=$1; shift\n"$@" & echo $! > "$OUT/$host.pid"\nwait\n')
    job = launch("ready(os.getppid())\npause()", per_node=1, starter="pbs_tmrsh", grace=0.5,
                    PATH=path_with(bin_folder), OUT=str(tmp_path))  # fmt: skip
    job.alive.wait_for_lines(2)
    agent = int((tmp_path / "node1.pid").read_text())
    os.kill(agent, signal.SIGSTOP)
    try:
        assert job.process.wait(DEADLINE) == 1
    finally:
        os.kill(agent, signal.SIGCONT)
    _, err = job.process.communicate(timeout=DEADLINE)
    assert "rank 1 on node1 is lost: its node has not been heard of for 3 s" in err
    job.alive.wait_until_nobody_lives()


def test_mpirun_starts_one_agent_a_node_and_ranks_know_which(launch: Start, bin_folder: Path) -> None:
    program(
        bin_folder,
        "mpirun",
        'if [ "$1" = --version ]; then echo "HYDRA build details:"; exit; fi\n'
        'test "$1 $3 $4 $5 $6" = "-f -ppn 1 -n 2" || exit 9\nshift 6\n'
        'for k in 1 0; do PMI_RANK=$k "$@" & done; wait\n',
    )
    job = launch("print('rank', rank)", starter="mpirun", PATH=path_with(bin_folder))
    code, out, err = job.end()
    assert (code, out) == (0, "rank 0\n"), err


def test_a_program_that_is_not_there_is_named_in_the_log(tmp_path: Path, launch: Start) -> None:
    job = launch("", per_node=1, nodes=1)
    assert job.end()[0] == 0
    driver = (tmp_path / "job" / "driver.py").read_text().replace("(sys.executable,", "('/no/such/python',")
    (tmp_path / "job" / "driver.py").write_text(driver)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job" / "driver.py"), "1", "1", "local", "1", str(tmp_path / "job")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 127
    assert "/no/such/python: cannot be started" in (tmp_path / "job" / "rank0.log").read_text()
