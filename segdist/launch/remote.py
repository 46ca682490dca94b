"""Ranks on the nodes of an allocation: the same promises as :func:`segdist.launch.local.run_ranks`, elsewhere.

:func:`run_remote` starts one :mod:`~segdist.launch.node_agent` a node through pbs_tmrsh, pbsdsh, mpirun or ssh,
sends signals and reads exit codes through files on shared storage, and ends when every rank has. What the starter
itself returns (pbsdsh: always 0) decides nothing, but for ranks that left no exit code: those count as lost.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdist.launch.console import STDOUT, say, write_all
from segdist.launch.local import FORWARDED, _before_exec, signals_as_bytes
from segdist.launch.node_agent import write_in_place
from segdist.launch.outcome import Outcome, RankEnd, RankSpec, signal_name
from segdist.launch.starters import Start, start_commands

AGENT = (sys.executable, "-E", "-S", str(Path(__file__).with_name("node_agent.py")))
"""The agent's program; its file is named by path, so that neither cwd nor environment matter."""

POLL_S = 0.25
_BEAT_S = 1.0


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for other machines: for agents to start, for a sign of life, for what a starter left."""

    start: float = 120.0
    lost: float = 60.0
    linger: float = 8.0


def run_remote(
    specs: Sequence[RankSpec],
    hosts: Sequence[str],
    starter: str,
    grace: float,
    folder: Path,
    patience: Timeouts = Timeouts(),
    environ: Mapping[str, str] = os.environ,
) -> Outcome:
    """Start every rank on its node (``ranks.node`` is an index into ``hosts``) and wait for all; main thread only.

    A rank gets ``environ``, its own additions, this process's working directory and umask. When one fails, the others
    have ``grace`` seconds, then get SIGTERM, and after another ``grace`` SIGKILL. SIGTERM, SIGINT and SIGUSR1 to this
    process reach every rank within a second or so; after the first two ranks have ``grace`` seconds until SIGKILL.
    Rank 0's log is copied to stdout.

    Args:
        folder: for the files through which launcher and agents talk; on storage that all nodes share. It is made,
            and removed at the end.
        patience: how long other machines may be silent before their ranks count as lost.

    Raises:
        ConfigError: for an mpirun that is not known.
        OSError: where a starter or the folder cannot be made.
    """
    run = _RemoteRun(specs, hosts, grace, folder, patience, environ)
    with signals_as_bytes() as signals, selectors.DefaultSelector() as selector:
        selector.register(signals, selectors.EVENT_READ)
        try:
            run.start(starter)
            while run.waiting:
                for _ in selector.select(run.seconds_to_next_look()):
                    run.forward(os.read(signals, 4096))
                run.collect()
                run.escalate()
        finally:
            run.close()
    return run.outcome


class _RemoteRun:
    """One launch over several nodes."""

    def __init__(
        self,
        specs: Sequence[RankSpec],
        hosts: Sequence[str],
        grace: float,
        folder: Path,
        patience: Timeouts,
        environ: Mapping[str, str],
    ) -> None:
        self.outcome = Outcome()
        self.waiting = {spec.rank: spec for spec in specs}
        self._hosts = hosts
        self._nodes = sorted({spec.ranks.node for spec in specs})
        self._specs = specs
        self._grace = grace
        self._folder = folder
        self._patience = patience
        self._environ = environ
        self._starters: list[tuple[Start, subprocess.Popen[bytes]]] = []
        self._started: set[int] = set()
        self._starter_ended: dict[int, float] = {}
        self._alive: dict[int, tuple[str, float]] = {}
        self._escalation: deque[tuple[float, signal.Signals]] = deque()
        self._killed = False
        self._log = _Tail(next((spec.log for spec in specs if spec.rank == 0), None))
        self._stop_beating = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def start(self, starter: str) -> None:
        """Write the plan and start the agents."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        for name in ("control", "beat", *(f"node{n}.beat" for n in self._nodes), *map(_state_name, self.waiting)):
            (self._folder / name).touch(mode=0o600)
        hostfile = self._folder / "hosts"
        hostfile.write_text("".join(f"{self._hosts[node]}\n" for node in self._nodes), encoding="utf-8")
        plan = self._folder / "plan.json"
        plan.touch(mode=0o600)  # the environment may hold secrets
        plan.write_text(json.dumps(self._plan()), encoding="utf-8")
        self._beating.start()
        agent = (*AGENT, str(self._folder.resolve()))
        for command in start_commands(starter, self._hosts, self._nodes, agent, str(hostfile.resolve())):
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
                stdout=2,  # what a starter says is the launcher's own output, not rank 0's
                preexec_fn=_before_exec(os.getpgrp(), tuple(os.sched_getaffinity(0))),
            )
            self._starters.append((command, process))
        now = time.monotonic()
        self._alive = dict.fromkeys(self._nodes, ("", now))

    def _plan(self) -> dict[str, Any]:
        umask = os.umask(0o022)
        os.umask(umask)
        nodes = [
            {
                "host": self._hosts[node],
                "ranks": [
                    {
                        "rank": spec.rank,
                        "argv": list(spec.argv),
                        "environment": dict(spec.environment),
                        "cores": list(spec.cores),
                        "log": str(spec.log.resolve()),
                    }
                    for spec in self._specs
                    if spec.ranks.node == node
                ],
            }
            for node in range(len(self._hosts))
        ]
        return {
            "cwd": os.getcwd(),  # noqa: PTH109 (as the shell sees it)
            "umask": umask,
            "environment": dict(self._environ),
            "lost_after": self._patience.lost,
            "grace": self._grace,
            "nodes": nodes,
        }

    def _beat(self) -> None:
        count = 0
        while not self._stop_beating.wait(_BEAT_S if count else 0):
            count += 1
            write_in_place(self._folder / "beat", f"{count}\n")

    def seconds_to_next_look(self) -> float:
        """Files have to be looked at: how long until then."""
        if not self._escalation:
            return POLL_S
        return min(POLL_S, max(0.0, self._escalation[0][0] - time.monotonic()))

    def forward(self, numbers: bytes) -> None:
        """Pass signals on to every rank."""
        for number in numbers:
            if number not in FORWARDED:
                continue
            say(f"was sent {signal_name(number)}; passing it on to {self._running()}")
            self._control(signal.Signals(number))
            if number != signal.SIGUSR1:
                kill_at = time.monotonic() + self._grace
                if self._escalation:
                    kill_at = min(kill_at, self._escalation[-1][0])
                self._escalation = deque([(kill_at, signal.SIGKILL)])
                if self.outcome.stopped_by is None and self.outcome.failure is None:
                    self.outcome.stopped_by = number

    def _control(self, number: signal.Signals) -> None:
        with (self._folder / "control").open("a", encoding="ascii") as file:
            file.write(f"{number.name}\n")
            file.flush()
            os.fsync(file.fileno())

    def collect(self) -> None:
        """Record the ranks that have ended or are lost; at the first failure give the others their time."""
        ended: list[tuple[float, RankEnd]] = []
        for rank, spec in self.waiting.items():
            found = self._end_of(rank, spec)
            if found is not None:
                ended.append(found)
        self._log.move()
        had_failed = self.outcome.failure is not None
        # Clocks of nodes differ a little: the times only order what is found at the same look.
        for _, end in sorted(ended, key=lambda item: (item[1].signal is None, item[0], item[1].spec.rank)):
            del self.waiting[end.spec.rank]
            self.outcome.ends.append(end)
        if not ended:
            self._look_for_lost()
        failure = self.outcome.failure
        if failure is not None and not had_failed and self.waiting and not self._escalation and not self._killed:
            now = time.monotonic()
            say(f"{failure}; waiting {self._grace:g} s for {self._running()} to end")
            self._escalation = deque([(now + self._grace, signal.SIGTERM), (now + 2 * self._grace, signal.SIGKILL)])

    def _end_of(self, rank: int, spec: RankSpec) -> tuple[float, RankEnd] | None:
        lines = (self._folder / _state_name(rank)).read_text(encoding="utf-8").split("\n")[:-1]
        for line in lines:
            kind, *words = line.split()
            if kind == "started":
                self._started.add(rank)
            elif kind == "exit":
                return float(words[1]), RankEnd(spec, exit_code=int(words[0]))
            elif kind == "signal":
                number = int(words[0])
                late = self._killed and number == signal.SIGKILL
                return float(words[1]), RankEnd(
                    spec, signal=number, late_after=self.outcome.stopped_by if late else None
                )
        return None

    def _look_for_lost(self) -> None:
        """A rank is lost where its starter has ended, or its node is silent, and there is no exit code."""
        now = time.monotonic()
        for command, process in self._starters:
            if process.poll() is not None:
                for node in command.nodes:
                    self._starter_ended.setdefault(node, now)
        for node in self._nodes:
            beat = (self._folder / f"node{node}.beat").read_text(encoding="ascii")
            if beat and beat != self._alive[node][0]:
                self._alive[node] = (beat, now)
        for rank, spec in list(self.waiting.items()):
            why = self._why_lost(rank, spec.ranks.node, now)
            if why is not None:
                say(f"rank {rank} on {self._hosts[spec.ranks.node]} is lost: {why}")
                del self.waiting[rank]
                self.outcome.ends.append(RankEnd(spec, exit_code=1))

    def _why_lost(self, rank: int, node: int, now: float) -> str | None:
        beat, since = self._alive[node]
        ended = self._starter_ended.get(node)
        # A starter may die of the TERM that its agent passes on: while the node is heard of, its ranks are at work.
        if ended is not None and now - max(ended, since) > self._patience.linger:
            code = next(p.returncode for c, p in self._starters if node in c.nodes)
            return f"{self._name(node)} ended with {code}, and the rank left no exit code"
        begun = bool(beat) or rank in self._started
        if not begun and now - since > self._patience.start:
            return f"{self._name(node)} has not started it within {self._patience.start:g} s"
        if begun and now - since > self._patience.lost:
            return f"its node has not been heard of for {self._patience.lost:g} s"
        return None

    def _name(self, node: int) -> str:
        return Path(next(c.argv[0] for c, _ in self._starters if node in c.nodes)).name

    def escalate(self) -> None:
        """Send the next signal once its time has come; ranks that do not even answer to KILL are given up."""
        while self.waiting and self._escalation and self._escalation[0][0] <= time.monotonic():
            _, number = self._escalation.popleft()
            if self._killed:
                for rank, spec in list(self.waiting.items()):
                    say(f"rank {rank} on {self._hosts[spec.ranks.node]} does not answer; giving it up")
                    del self.waiting[rank]
                    self.outcome.ends.append(RankEnd(spec, signal=signal.SIGKILL, late_after=self.outcome.stopped_by))
                return
            say(f"{self._running()} did not end in time; sending {number.name}")
            self._control(number)
            if number == signal.SIGKILL:
                self._killed = True
                self._escalation.append((time.monotonic() + self._patience.linger, number))

    def close(self) -> None:
        """End what is left: agents by KILL and silence, starters by closing their input, then TERM."""
        if self.waiting and self._folder.exists():
            self._control(signal.SIGKILL)
        for _, process in self._starters:
            if process.stdin is not None:
                process.stdin.close()
        deadline = time.monotonic() + self._patience.linger
        for _, process in self._starters:
            _end_process(process, deadline)
        self._stop_beating.set()
        if self._beating.is_alive():
            self._beating.join()
        self._log.move()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _running(self) -> str:
        numbers = sorted(self.waiting)
        return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else "no rank"


def _end_process(process: subprocess.Popen[bytes], deadline: float) -> None:
    ways: tuple[Callable[[], None], ...] = (process.terminate, process.kill)
    for end in ways:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
            return
        except subprocess.TimeoutExpired:
            end()
            deadline = time.monotonic() + 2.0
    process.wait()


def _state_name(rank: int) -> str:
    return f"rank{rank}.state"


class _Tail:
    """A log on shared storage on its way to stdout; opened anew each time, which is what makes NFS look."""

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._at = 0

    def move(self) -> None:
        """Copy what has been added since the last call."""
        if self._log is None:
            return
        try:
            with self._log.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return
        self._at += len(data)
        if data and not write_all(STDOUT, data):
            self._log = None
            say("nobody reads the output any more; rank 0 goes on, and its log has the rest")
