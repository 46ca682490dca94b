"""The ranks of one node, started and watched on that node; run as ``python -E -S node_agent.py FOLDER NODE``.

What starts a process on another node (pbsdsh, pbs_tmrsh, ssh, mpirun) brings no environment, no folder and often no
exit code with it. So the launcher starts one of these per node, and both talk through small files in FOLDER, which
is on shared storage::

    plan.json      what to start: environment, folder, umask, and the ranks of every node
    control        signals for the ranks, a name a line; written by the launcher
    beat           a number that the launcher changes every second or two: it is alive
    node<n>.beat   the same, written by the agent of node n
    rank<k>.state  "started HOST PID", then "exit CODE TIME" or "signal NUMBER TIME"

Every file is there before the agents start and is written in place: a network file system may show a new file or a
new folder entry half a minute late, but a file that is opened anew is up to date (close-to-open consistency, nfs(5)).

The agent ends its ranks when the launcher says so, when ``beat`` stands still, and when its standard input closes
(with ``--stdin``: the ssh connection has gone). It makes no session of its own: a scheduler ends the processes of a
job by their sessions. Standard library only, and no import of this project: nothing is installed in a bare
environment but this file.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

POLL_S = 0.5
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_OF_THE_NODE = ("TMPDIR", "HOSTNAME", "PBS_NODENUM", "PBS_TASKNUM", "PBS_VNODENUM", "XDG_RUNTIME_DIR")
"""Variables of which a rank gets its own node's value, or none, and not that of the launcher's node."""


def rank_environ(plan: Mapping[str, str], rank: Mapping[str, str], here: Mapping[str, str]) -> dict[str, str]:
    """A rank's environment: the launcher's, with this node's value of what belongs to a node, and the rank's own."""
    shared = {name: value for name, value in plan.items() if name not in _OF_THE_NODE}
    return {**shared, **{name: here[name] for name in _OF_THE_NODE if name in here}, **rank}


def find_node(hosts: Sequence[str], hostname: str, environ: Mapping[str, str]) -> int:
    """Which node of the plan this is, where the starter cannot say: by its name, else by the rank that MPI gave.

    Raises:
        SystemExit: where neither tells.
    """
    short = hostname.partition(".")[0]
    named = [index for index, host in enumerate(hosts) if host == hostname or host.partition(".")[0] == short]
    if len(named) == 1:
        return named[0]
    for variable in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK"):
        if environ.get(variable, "").isdecimal() and int(environ[variable]) < len(hosts):
            return int(environ[variable])
    raise SystemExit(f"node_agent: {hostname} is none of {', '.join(hosts)}, and no MPI rank is set; use --starter ssh")


class Agent:
    """The processes of one node's ranks."""

    def __init__(self, folder: Path, plan: Mapping[str, Any], node: int) -> None:
        self._folder = folder
        self._plan = plan
        self._ranks = plan["nodes"][node]["ranks"]
        self._beat = folder / f"node{node}.beat"
        self._running: dict[int, int] = {}  # pid → rank
        self._processes: list[subprocess.Popen[bytes]] = []
        self._control_lines = 0
        self._asked: set[int] = set()
        self._last_beat = ("", time.monotonic())
        self._kill_at: float | None = None

    def run(self, stdin: bool) -> None:
        """Start the ranks and stay until all have ended."""
        with _wakeups() as wakeups:
            watched = [wakeups, 0] if stdin else [wakeups]
            try:
                self._start()
                while self._running:
                    ready, _, _ = select.select(watched, [], [], POLL_S)
                    if wakeups in ready:
                        for number in os.read(wakeups, 4096):
                            self._signal(number)
                    if 0 in ready and not os.read(0, 4096):
                        watched.remove(0)
                        self._end("the connection to the launcher has gone")
                    self._obey()
                    self._collect()
                    if self._kill_at is not None and time.monotonic() >= self._kill_at:
                        self._kill()
                    self._show_life()
            finally:
                self._kill()
                self._collect(wait=True)
                for process in self._processes:
                    process.wait()

    def _show_life(self) -> None:
        try:
            write_in_place(self._beat, f"{time.time():.1f}\n")
        except FileNotFoundError:  # the launcher has ended, and taken the folder away
            self._kill()
        except OSError:  # the storage has a bad moment; if it lasts, the launcher's beat is missed too
            return

    def _start(self) -> None:
        os.umask(self._plan["umask"])
        for rank in self._ranks:
            environ = rank_environ(self._plan["environment"], rank["environment"], os.environ)
            with Path(rank["log"]).open("wb", buffering=0) as log:
                try:
                    process = subprocess.Popen(
                        rank["argv"],
                        env=environ,
                        cwd=self._plan["cwd"],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        preexec_fn=_before_exec(rank["cores"]),
                    )
                except (OSError, subprocess.SubprocessError) as error:
                    log.write(f"{rank['argv'][0]}: cannot be started in {self._plan['cwd']} ({error})\n".encode())
                    self._say(rank["rank"], f"exit 127 {time.time():.3f}")
                    continue
            self._processes.append(process)
            self._running[process.pid] = rank["rank"]
            self._say(rank["rank"], f"started {socket.gethostname()} {process.pid}")

    def _say(self, rank: int, line: str) -> None:
        with (self._folder / f"rank{rank}.state").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _signal(self, number: int) -> None:
        """Pass a signal on to the ranks; what asks them to end, once: it may come by two ways."""
        if number not in _FORWARDED or number in self._asked:
            return
        if number != signal.SIGUSR1:
            self._asked.add(number)
        for pid in self._running:
            os.kill(pid, number)

    def _obey(self) -> None:
        """Do what the launcher has written, and end the ranks where it writes no more."""
        now = time.monotonic()
        try:
            lines = (self._folder / "control").read_text(encoding="ascii").split("\n")[:-1]
            beat = (self._folder / "beat").read_text(encoding="ascii")
        except OSError:  # the folder is gone, or the storage does not answer: no beat
            lines, beat = [], ""
        for line in lines[self._control_lines :]:
            if line == "SIGKILL":
                self._kill()
            else:
                self._signal(signal.Signals[line])
        self._control_lines = max(self._control_lines, len(lines))
        if beat and beat != self._last_beat[0]:
            self._last_beat = (beat, now)
        elif now - self._last_beat[1] > self._plan["lost_after"]:
            self._end(f"the launcher has not been heard of for {self._plan['lost_after']:g} s")

    def _end(self, why: str) -> None:
        if self._kill_at is None:
            print(f"node_agent on {socket.gethostname()}: {why}; ending its ranks", file=sys.stderr, flush=True)
            self._signal(signal.SIGTERM)
            self._kill_at = time.monotonic() + self._plan["grace"]

    def _kill(self) -> None:
        """KILL every rank and what it left in its process group; an unreaped leader keeps its group's number taken."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _collect(self, wait: bool = False) -> None:
        for pid, rank in list(self._running.items()):
            info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG))
            if info is None:
                continue
            del self._running[pid]
            kind = "exit" if info.si_code == os.CLD_EXITED else "signal"
            self._say(rank, f"{kind} {info.si_status} {time.time():.3f}")


def write_in_place(path: Path, text: str) -> None:
    """Overwrite a short file without making a new one."""
    with path.open("r+", encoding="ascii") as file:
        file.write(text)
        file.truncate()


@contextlib.contextmanager
def _wakeups() -> Any:
    """The reading end of a pipe that gets the number of each signal that arrives."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*_FORWARDED, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    yield reader


def _before_exec(cores: Sequence[int]) -> Callable[[], None]:
    """In the child: die with the agent, lead a process group (not a session), take the cores, heed signals again."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
    agent = os.getpid()

    def prepare() -> None:
        if prctl(1, signal.SIGKILL, 0, 0, 0) != 0:  # PR_SET_PDEATHSIG
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != agent:
            os.kill(os.getpid(), signal.SIGKILL)
        os.setpgid(0, 0)
        if cores:
            os.sched_setaffinity(0, cores)

    return prepare


def main(argv: Sequence[str]) -> int:
    """``FOLDER NODE [--stdin]``; NODE is a number, or "auto". The ranks' exit codes are in their files: this is 0."""
    folder, node = Path(argv[0]), argv[1]
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    hosts = [entry["host"] for entry in plan["nodes"]]
    index = find_node(hosts, socket.gethostname(), os.environ) if node == "auto" else int(node)
    Agent(folder, plan, index).run(stdin="--stdin" in argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
