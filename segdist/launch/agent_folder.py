"""The folder through which the launcher and the agent of each node talk; on storage that all nodes share.

::

    plan.json      what to start: environment, folder, umask, and the ranks of every node
    hosts          the nodes' names, a name a line, for mpirun
    control        signals for the ranks, a name a line; written by the launcher
    beat           the launcher's heartbeat: a number that it changes every second or two
    node<n>.beat   the same, written by the agent of node n
    rank<k>.state  "started HOST PID", then "exit CODE TIME" or "signal NUMBER TIME"; written by its agent

Every file is there before the agents start and is written in place: a network file system may show a new file or a
new folder entry half a minute late, but a file that is opened anew is up to date (close-to-open consistency, nfs(5)).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdist.launch.outcome import RankSpec

HEARTBEAT_S = 1.0


@dataclass(frozen=True)
class RankState:
    """What an agent has written about a rank: whether it was started, and how and when it ended (0.0: it has not)."""

    started: bool = False
    exit_code: int | None = None
    signal: int | None = None
    ended_at: float = 0.0


class AgentFolder:
    """The paths in the folder, and how they are written and read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan_json = path / "plan.json"
        self.hosts = path / "hosts"
        self.control = path / "control"
        self.heartbeat = path / "beat"

    def node_heartbeat(self, node: int) -> Path:
        """Where the agent of a node writes its heartbeat."""
        return self.path / f"node{node}.beat"

    def rank_state(self, rank: int) -> Path:
        """Where the start and the end of a rank are written."""
        return self.path / f"rank{rank}.state"

    def create(self, plan: Mapping[str, Any], hosts: Sequence[str], nodes: Iterable[int], ranks: Iterable[int]) -> None:
        """Make the folder and every file in it; readable by this user alone, as the environment may hold secrets.

        Args:
            plan: see :func:`agent_plan`.
            hosts: names of the nodes on which agents are started.
            nodes: their numbers.
            ranks: the numbers of all ranks.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True, mode=0o700)
        written = (self.control, self.heartbeat, *map(self.node_heartbeat, nodes), *map(self.rank_state, ranks))
        for path in (*written, self.plan_json):
            path.touch(mode=0o600)
        self.hosts.write_text("".join(f"{host}\n" for host in hosts), encoding="utf-8")
        self.plan_json.write_text(json.dumps(plan), encoding="utf-8")

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def send(self, number: signal.Signals) -> None:
        """Have every agent send its ranks that signal."""
        _append_line(self.control, number.name)

    def read_control(self) -> list[str]:
        """The names of all signals that were sent; a line that is half written is left out."""
        return self.control.read_text(encoding="ascii").split("\n")[:-1]

    def append_state(self, rank: int, line: str) -> None:
        """Record the start or the end of a rank."""
        _append_line(self.rank_state(rank), line)

    def read_state(self, rank: int) -> RankState:
        """What is recorded about a rank."""
        state = RankState()
        for line in self.rank_state(rank).read_text(encoding="utf-8").split("\n")[:-1]:
            kind, *words = line.split()
            if kind == "started":
                state = RankState(started=True)
            elif kind == "exit":
                return RankState(state.started, exit_code=int(words[0]), ended_at=float(words[1]))
            elif kind == "signal":
                return RankState(state.started, signal=int(words[0]), ended_at=float(words[1]))
        return state


class LauncherHeartbeat:
    """A thread that writes the launcher's heartbeat."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the file must be there."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, where it was started, and wait for it."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _write(self) -> None:
        count = 0
        while not self._ended.wait(HEARTBEAT_S if count else 0):
            count += 1
            write_in_place(self._path, f"{count}\n")


def agent_plan(specs: Sequence[RankSpec], hosts: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """The ranks of every node as JSON values, and the environment that they have in common."""
    nodes: list[dict[str, Any]] = [{"host": host, "ranks": []} for host in hosts]
    for spec in specs:
        nodes[spec.ranks.node]["ranks"].append(
            {
                "rank": spec.rank,
                "argv": list(spec.argv),
                "environment": dict(spec.environment),
                "cores": list(spec.cores),
                "log": str(spec.log.resolve()),
            }
        )
    return {"environment": dict(environ), "nodes": nodes}


def write_in_place(path: Path, text: str) -> None:
    """Overwrite a short file without making a new one."""
    with path.open("r+", encoding="ascii") as file:
        file.write(text)
        file.truncate()


def _append_line(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
