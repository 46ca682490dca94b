"""The ranks of one node, started and watched on that node.

What starts a process on another node (pbsdsh, pbs_tmrsh, ssh, mpirun) brings no environment, no folder and often no
exit code with it. So the launcher starts one agent per node (:mod:`segdist.launch.agent_main`), and both talk through
small files on shared storage (:mod:`segdist.launch.agent_folder`).

The agent ends its ranks when the launcher says so, when the launcher's heartbeat stands still, and when its standard
input closes (with ``--stdin``: the ssh connection has gone). Standard library only, here and in all it imports: it runs
in a bare environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segdist.launch.agent_folder import AgentFolder, write_in_place
from segdist.launch.child import before_exec
from segdist.launch.escalation import Escalation
from segdist.launch.supervisor import FORWARDED
from segdist.system.output import prepare_output
from segdist.system.signal_pipe import signal_pipe

POLL_S = 0.5
"""Seconds between two looks at the launcher's files."""
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


class NodeAgent:
    """The processes of one node's ranks."""

    def __init__(self, folder: AgentFolder, plan: Mapping[str, Any], node: int) -> None:
        self._folder = folder
        self._plan = plan
        self._ranks = plan["nodes"][node]["ranks"]
        self._heartbeat = folder.node_heartbeat(node)
        self._running: dict[int, int] = {}  # pid → rank
        self._processes: list[subprocess.Popen[bytes]] = []
        self._control_lines = 0
        self._asked: set[int] = set()
        self._last_heartbeat = ("", time.monotonic())
        self._escalation = Escalation(plan["grace"])

    def run(self, stdin: bool) -> None:
        """Start the ranks and stay until all have ended."""
        with signal_pipe((*FORWARDED, signal.SIGCHLD)) as signals:
            watched = [signals, 0] if stdin else [signals]
            try:
                self._start()
                while self._running:
                    ready, _, _ = select.select(watched, [], [], POLL_S)
                    if signals in ready:
                        for number in os.read(signals, 4096):
                            self._signal(number)
                    if 0 in ready and not os.read(0, 4096):
                        watched.remove(0)
                        self._stop("the connection to the launcher has gone")
                    self._heed_launcher()
                    self._collect()
                    if self._escalation.due() is not None:
                        self._kill()
                    self._write_heartbeat()
            finally:
                self._kill()
                self._collect(wait=True)
                for process in self._processes:
                    process.wait()

    def _write_heartbeat(self) -> None:
        try:
            write_in_place(self._heartbeat, f"{time.time():.1f}\n")
        except FileNotFoundError:  # the launcher has ended, and taken the folder away
            self._kill()
        except OSError:  # the storage has a bad moment; if it lasts, the launcher's heartbeat is missed too
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
                        preexec_fn=before_exec(0, rank["cores"], hold=(signal.SIGUSR1,)),
                    )
                except (OSError, subprocess.SubprocessError) as error:
                    said = f"{rank['argv'][0]}: cannot be started in {self._plan['cwd']} ({error})\n"
                    log.write(said.encode(errors="replace"))
                    self._record(rank["rank"], f"exit 127 {time.time():.3f}")
                    continue
            self._processes.append(process)
            self._running[process.pid] = rank["rank"]
            self._record(rank["rank"], f"started {socket.gethostname()} {process.pid}")

    def _record(self, rank: int, line: str) -> None:
        try:
            self._folder.append_state(rank, line)
        except FileNotFoundError:  # the launcher has ended, and taken the folder away: nobody asks any more
            return

    def _signal(self, number: int) -> None:
        """Pass a signal on to the ranks; what asks them to end, once: it may come by two ways."""
        if number not in FORWARDED or number in self._asked:
            return
        if number != signal.SIGUSR1:
            self._asked.add(number)
        for pid in self._running:
            os.kill(pid, number)

    def _heed_launcher(self) -> None:
        """Do what the launcher has written, and end the ranks where it writes no more."""
        now = time.monotonic()
        try:
            lines = self._folder.read_control()
            heartbeat = self._folder.heartbeat.read_text(encoding="ascii")
        except OSError:  # the folder is gone, or the storage does not answer: no heartbeat
            lines, heartbeat = [], ""
        for line in lines[self._control_lines :]:
            if line == "SIGKILL":
                self._kill()
            else:
                self._signal(signal.Signals[line])
        self._control_lines = max(self._control_lines, len(lines))
        if heartbeat and heartbeat != self._last_heartbeat[0]:
            self._last_heartbeat = (heartbeat, now)
        elif now - self._last_heartbeat[1] > self._plan["lost_after"]:
            self._stop(f"the launcher has not been heard of for {self._plan['lost_after']:g} s")

    def _stop(self, why: str) -> None:
        """Ask the ranks to end, once."""
        if not self._escalation.begun:
            print(f"node_agent on {socket.gethostname()}: {why}; ending its ranks", file=sys.stderr, flush=True)
            self._signal(signal.SIGTERM)
            self._escalation.after_stop()

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
            self._record(rank, f"{kind} {info.si_status} {time.time():.3f}")


def main(argv: Sequence[str]) -> int:
    """``FOLDER NODE [--stdin]``; NODE is a number, or "auto". The ranks' exit codes are in their files: this is 0."""
    prepare_output()  # an ssh connection that has gone takes no last words
    folder, node = AgentFolder(Path(argv[0])), argv[1]
    plan = json.loads(folder.plan_json.read_text(encoding="utf-8"))
    hosts = [entry["host"] for entry in plan["nodes"]]
    index = find_node(hosts, socket.gethostname(), os.environ) if node == "auto" else int(node)
    NodeAgent(folder, plan, index).run(stdin="--stdin" in argv[2:])
    return 0
