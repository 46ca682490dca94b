"""Ranks on "other nodes": real agents and ranks, started by real commands that behave like the starters of a site."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from segdist.launch.node_agent import find_node, rank_environ

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0

RANK = """
import json, os, signal, subprocess, sys, time
rank, out = int(os.environ["RANK"]), os.environ["OUT"]
signal.alarm(60)
alive = os.open(f"{out}/alive", os.O_WRONLY)  # held open until this process ends

def ready(*words):
    os.write(alive, (" ".join(map(str, (rank, *words))) + "\\n").encode())

def pause():
    while True:
        signal.pause()
"""

DRIVER = """
import os, sys
from pathlib import Path
from segdist.launch.local import RankSpec
from segdist.system.ranks import Ranks
from segdist.launch.remote import Timeouts, run_remote
nodes, per_node, starter = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
grace, folder = float(sys.argv[4]), Path(sys.argv[5])
command = (sys.executable, "-S", "-E", str(folder / "rank.py"))
world = nodes * per_node
specs = [
    RankSpec(Ranks(k, world, k % per_node, per_node, k // per_node), command,
             {"RANK": str(k), "OUT": str(folder)}, (), folder / f"rank{k}.log")
    for k in range(world)
]
outcome = run_remote(specs, [f"node{n}" for n in range(nodes)], starter, grace, folder / "talk", Timeouts(20, 3, 2))
print(outcome, file=sys.stderr)
sys.exit(outcome.exit_code)
"""


class Launch:
    """run_remote in a process of its own. Every rank holds the FIFO ``alive`` open as long as it lives."""

    def __init__(self, folder: Path, script: str, nodes: int = 2, per_node: int = 2, starter: str = "local",
                 grace: float = 20.0, **environment: str) -> None:  # fmt: skip
        self.folder = folder
        folder.mkdir(exist_ok=True)
        os.mkfifo(folder / "alive")
        (folder / "rank.py").write_text(RANK + script)
        (folder / "driver.py").write_text(DRIVER)
        self._alive = os.open(folder / "alive", os.O_RDONLY | os.O_NONBLOCK)
        self._lines = b""
        arguments = [str(nodes), str(per_node), starter, str(grace), str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py"), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_lines(self, count: int) -> list[str]:
        """Wait until the ranks have sent that many lines in all."""
        until = time.monotonic() + DEADLINE
        while self._lines.count(b"\n") < count:
            assert select.select([self._alive], [], [], max(0.0, until - time.monotonic()))[0], self._lines
            data = os.read(self._alive, 4096)
            assert data, f"the ranks ended before they sent {count} lines: {self._lines!r}"
            self._lines += data
        return sorted(self._lines.decode().splitlines())

    def wait_until_nobody_lives(self) -> None:
        """Wait until no process has the FIFO open any more."""
        until = time.monotonic() + DEADLINE
        while True:
            assert select.select([self._alive], [], [], max(0.0, until - time.monotonic()))[0], "a rank lives on"
            if not os.read(self._alive, 4096):
                return

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr; nothing of the job may be left then."""
        out, err = self.process.communicate(timeout=DEADLINE)
        self.wait_until_nobody_lives()
        return self.process.returncode, out, err

    def close(self) -> None:
        """End whatever the test left."""
        self.process.kill()
        self.process.communicate()
        os.close(self._alive)


@pytest.fixture
def launches() -> Iterator[list[Launch]]:
    """Launches that are ended after the test."""
    started: list[Launch] = []
    yield started
    for one in started:
        one.close()


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder of programs that is first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def program(folder: Path, name: str, text: str) -> None:
    """An executable shell script."""
    (folder / name).write_text("#!/bin/bash\n" + text)
    (folder / name).chmod(0o755)


def path_with(folder: Path) -> str:
    """PATH with that folder first."""
    return f"{folder}:{os.environ['PATH']}"


def test_a_rank_gets_environment_folder_umask_and_its_numbers(tmp_path: Path, launches: list[Launch]) -> None:
    script = """
mask = os.umask(0)
seen = dict(cwd=os.getcwd(), mask=mask, odd=os.environ["ODD"], tmp=os.environ.get("TMPDIR"), sid=os.getsid(0))
with open(f"{out}/seen{rank}.json", "w") as file: json.dump(seen, file)
print("hello from", rank)
"""
    odd = "a 'quoted' \"value\" with $HOME, spaces\nand lines"
    launch = Launch(tmp_path / "with space", script, ODD=odd, TMPDIR="/somewhere/else")
    launches.append(launch)
    code, out, err = launch.end()
    assert code == 0, err
    assert out == "hello from 0\n"
    for rank in range(4):
        seen = json.loads((launch.folder / f"seen{rank}.json").read_text())
        assert seen["cwd"] == str(Path.cwd())
        assert seen["odd"] == odd
        assert seen["sid"] == os.getsid(0), "a session of its own would escape the scheduler's kill"
        assert (launch.folder / f"rank{rank}.log").read_text() == f"hello from {rank}\n"
    assert not (launch.folder / "talk").exists()


def test_the_first_failing_rank_decides_the_exit_code(tmp_path: Path, launches: list[Launch]) -> None:
    script = "ready('up')\nif rank == 3: sys.exit(7)\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\npause()"
    launch = Launch(tmp_path / "job", script, grace=0.5)
    launches.append(launch)
    code, _, err = launch.end()
    assert code == 7
    assert "rank 3 ended with exit code 7" in err.splitlines()[-1]


def test_ranks_deaf_to_term_are_killed_and_so_are_their_children(tmp_path: Path, launches: list[Launch]) -> None:
    script = """
if rank == 0:
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    pause()
pause()
"""
    launch = Launch(tmp_path / "job", script, grace=0.5)
    launches.append(launch)
    code, _, err = launch.end()
    assert code == 137
    assert "rank 0 was killed by SIGKILL" in err


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_launcher_reaches_every_rank(
    tmp_path: Path, launches: list[Launch], number: signal.Signals, exit_code: int
) -> None:
    script = """
def stop(number, frame):
    ready('got', number)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
ready('up')
pause()
"""
    launch = Launch(tmp_path / "job", script)
    launches.append(launch)
    launch.wait_for_lines(4)
    launch.process.send_signal(number)
    assert sum(f"got {int(number)}" in line for line in launch.wait_for_lines(8)) == 4
    assert launch.end()[0] == exit_code


def test_usr1_asks_to_save_and_nothing_else_follows(tmp_path: Path, launches: list[Launch]) -> None:
    script = """
signal.signal(signal.SIGUSR1, lambda *_: ready('save'))
ready('up')
signal.pause()
time.sleep(1.0)
sys.exit(75)
"""
    launch = Launch(tmp_path / "job", script, grace=0.1)
    launches.append(launch)
    launch.wait_for_lines(4)
    launch.process.send_signal(signal.SIGUSR1)
    launch.wait_for_lines(8)
    assert launch.end()[0] == 75


def test_no_rank_outlives_a_killed_launcher(tmp_path: Path, launches: list[Launch], bin_folder: Path) -> None:
    # pbs_tmrsh passes nothing on: its task is no child of it. The agents miss the launcher's beat.
    program(bin_folder, "pbs_tmrsh", 'shift\nsetsid --wait "$@"\n')
    launch = Launch(
        tmp_path / "job", "ready('up')\npause()", starter="pbs_tmrsh", grace=0.5, PATH=path_with(bin_folder)
    )
    launches.append(launch)
    launch.wait_for_lines(4)
    launch.process.kill()
    launch.wait_until_nobody_lives()


def test_ranks_started_by_ssh_end_with_the_connection(tmp_path: Path, launches: list[Launch], bin_folder: Path) -> None:
    # sshd starts what it is told to in a session of its own, which survives the client; only its pipes close.
    program(bin_folder, "ssh", 'for last; do :; done\nsetsid --wait bash -c "$last"\n')
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nready('up')\npause()"
    launch = Launch(tmp_path / "job $x 'y'", script, starter="ssh", grace=0.5, PATH=path_with(bin_folder))
    launches.append(launch)
    launch.wait_for_lines(4)
    launch.process.kill()
    launch.wait_until_nobody_lives()


def test_a_starter_that_says_0_hides_no_failure(tmp_path: Path, launches: list[Launch], bin_folder: Path) -> None:
    program(bin_folder, "pbsdsh", 'test "$1" = -h || exit 9\nshift 2\nenv -i "$@"\nexit 0\n')
    launch = Launch(tmp_path / "job", "sys.exit(5 if rank == 2 else 0)", starter="pbsdsh", PATH=path_with(bin_folder))
    launches.append(launch)
    assert launch.end()[0] == 5


def test_a_rank_that_left_no_exit_code_is_lost_whatever_the_starter_says(
    tmp_path: Path, launches: list[Launch], bin_folder: Path
) -> None:
    program(bin_folder, "pbsdsh", 'test "$2" = node1 && exit 0\nshift 2\nexec "$@"\n')
    launch = Launch(tmp_path / "job", "ready('up')\npause()", per_node=1, starter="pbsdsh", grace=0.5,
                    PATH=path_with(bin_folder))  # fmt: skip
    launches.append(launch)
    code, _, err = launch.end()
    assert code == 1
    assert "rank 1 on node1 is lost: pbsdsh ended with 0, and the rank left no exit code" in err


def test_a_silent_node_loses_its_ranks(tmp_path: Path, launches: list[Launch], bin_folder: Path) -> None:
    program(bin_folder, "pbs_tmrsh", 'host=$1; shift\n"$@" & echo $! > "$OUT/$host.pid"\nwait\n')
    launch = Launch(tmp_path / "job", "ready(os.getppid())\npause()", per_node=1, starter="pbs_tmrsh", grace=0.5,
                    PATH=path_with(bin_folder), OUT=str(tmp_path))  # fmt: skip
    launches.append(launch)
    launch.wait_for_lines(2)
    agent = int((tmp_path / "node1.pid").read_text())
    os.kill(agent, signal.SIGSTOP)
    try:
        assert launch.process.wait(DEADLINE) == 1
    finally:
        os.kill(agent, signal.SIGCONT)
    _, err = launch.process.communicate(timeout=DEADLINE)
    assert "rank 1 on node1 is lost: its node has not been heard of for 3 s" in err
    launch.wait_until_nobody_lives()


def test_mpirun_starts_one_agent_a_node_and_ranks_know_which(
    tmp_path: Path, launches: list[Launch], bin_folder: Path
) -> None:
    program(
        bin_folder,
        "mpirun",
        'if [ "$1" = --version ]; then echo "HYDRA build details:"; exit; fi\n'
        'test "$1 $3 $4 $5 $6" = "-f -ppn 1 -n 2" || exit 9\nshift 6\n'
        'for k in 1 0; do PMI_RANK=$k "$@" & done; wait\n',
    )
    launch = Launch(tmp_path / "job", "print('rank', rank)", starter="mpirun", PATH=path_with(bin_folder))
    launches.append(launch)
    code, out, err = launch.end()
    assert (code, out) == (0, "rank 0\n"), err


def test_a_program_that_is_not_there_is_named_in_the_log(tmp_path: Path, launches: list[Launch]) -> None:
    launch = Launch(tmp_path / "job", "", per_node=1, nodes=1)
    launches.append(launch)
    assert launch.end()[0] == 0
    driver = (tmp_path / "job" / "driver.py").read_text().replace("(sys.executable,", "('/no/such/python',")
    (tmp_path / "job" / "driver.py").write_text(driver)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job" / "driver.py"), "1", "1", "local", "1", str(tmp_path / "job")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 127
    assert "/no/such/python: cannot be started" in (tmp_path / "job" / "rank0.log").read_text()


def test_what_belongs_to_a_node_is_not_carried_to_another() -> None:
    launcher = {"TMPDIR": "/tmp/n1", "PBS_NODENUM": "0", "PATH": "/venv/bin"}
    here = {"PBS_NODENUM": "1", "PATH": "/bin", "HOSTNAME": "n2"}
    environ = rank_environ(launcher, {"RANK": "3"}, here)
    assert environ == {"PBS_NODENUM": "1", "HOSTNAME": "n2", "PATH": "/venv/bin", "RANK": "3"}


def test_an_agent_finds_its_node_by_name_or_by_mpi_rank() -> None:
    assert find_node(["n1", "n2.site"], "n2", {}) == 1
    assert find_node(["10.0.0.1", "10.0.0.2"], "n2", {"OMPI_COMM_WORLD_RANK": "1"}) == 1
    with pytest.raises(SystemExit, match="n9 is none of n1, n2"):
        find_node(["n1", "n2"], "n9", {})
