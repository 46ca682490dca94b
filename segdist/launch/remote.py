"""Ranks on the nodes of an allocation: the same promises as :func:`segdist.launch.local.run_ranks`, elsewhere.

:func:`run_remote` starts one :mod:`~segdist.launch.node_agent` a node through pbs_tmrsh, pbsdsh, mpirun or ssh,
sends signals and reads exit codes through files on shared storage (:mod:`segdist.launch.agent_folder`), and ends when
every rank has. What the starter itself returns (pbsdsh: always 0; pbs_tmrsh of a dead node: 0) decides nothing, but
for ranks that left no exit code: those count as lost. A node that goes silent before any rank has failed is the cause
of what follows; a rank that fails while its node is heard of is not a lost node, whatever becomes of the others.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segdist.launch.agent_folder import AgentFolder, LauncherHeartbeat, agent_plan
from segdist.launch.child import before_exec
from segdist.launch.console import Rank0Output, log_line
from segdist.launch.outcome import Outcome, RankEnd, RankSpec
from segdist.launch.pbs_job import pbsdsh_lines
from segdist.launch.starters import StartCommand, start_commands
from segdist.launch.supervisor import RankSupervisor
from segdist.system.log_tail import LogTail

AGENT = (sys.executable, "-E", "-S", str(Path(__file__).with_name("agent_main.py")))
"""The agent's program; its file is named by path, so that neither cwd nor environment matter."""

POLL_S = 0.25
"""Seconds between two looks at rank 0's log, and at first at the files of the agents."""
STATE_POLL_S = 2.0
"""Seconds, at the most, between two looks at the agents' files, of which there is one a rank and one a node."""
_FIRST_S = 2.0
"""Seconds by which a neighbour's failure may be noticed before the last heartbeat of the node that caused it."""


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
    timeouts: Timeouts = Timeouts(),
) -> Outcome:
    """Start every rank on its node (``ranks.node`` is an index into ``hosts``) and wait for all; main thread only.

    A rank gets this process's environment with its own additions, its working directory and umask. When one fails, the
    others have ``grace`` seconds, then get SIGTERM, and after another ``grace`` SIGKILL. SIGTERM, SIGINT and SIGUSR1 to
    this process reach every rank within a second or so; after the first two ranks have ``grace`` seconds until SIGKILL.
    Rank 0's log is copied to stdout.

    Args:
        folder: for the files through which launcher and agents talk; on storage that all nodes share. It is made,
            and removed at the end.
        timeouts: how long other machines may be silent before their ranks count as lost.

    Raises:
        ConfigError: for an mpirun that is not known.
        OSError: where a starter or the folder cannot be made.
    """
    return _RemoteRanks(specs, hosts, starter, grace, AgentFolder(folder), timeouts).run()


class _RemoteRanks(RankSupervisor):
    """One launch over several nodes."""

    def __init__(
        self,
        specs: Sequence[RankSpec],
        hosts: Sequence[str],
        starter: str,
        grace: float,
        folder: AgentFolder,
        timeouts: Timeouts,
    ) -> None:
        super().__init__(specs, grace)
        self._hosts = hosts
        self._starter = starter
        self._folder = folder
        self._timeouts = timeouts
        self._nodes = sorted({spec.ranks.node for spec in specs})
        self._commands: list[tuple[StartCommand, subprocess.Popen[bytes]]] = []
        self._started: set[int] = set()
        self._starter_ended: dict[int, float] = {}
        self._last_heartbeat: dict[int, tuple[str, float]] = {}
        self._give_up_at: float | None = None
        self._begun = time.monotonic()
        self._look_again = 0.0
        self._failed_at: float | None = None
        self._log = LogTail(next(spec.log for spec in specs if spec.rank == 0))
        self._shown = Rank0Output()
        self._heartbeat = LauncherHeartbeat(folder.heartbeat)

    def start(self, selector: selectors.BaseSelector) -> None:
        """Write the plan and start the agents."""
        umask = os.umask(0o022)
        os.umask(umask)
        plan = {
            **agent_plan(self.specs, self._hosts, os.environ),
            "cwd": os.getcwd(),  # noqa: PTH109 (as the shell sees it)
            "umask": umask,
            "lost_after": self._timeouts.lost,
            "grace": self.escalation.grace,
        }
        self._folder.create(plan, [self._hosts[node] for node in self._nodes], self._nodes, self.waiting)
        self._heartbeat.start()
        agent = (*AGENT, str(self._folder.path.resolve()))
        for command in start_commands(
            self._starter, self._hosts, self._nodes, agent, str(self._folder.hosts.resolve()), pbsdsh_lines(os.environ)
        ):
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
                stdout=2,  # what a starter says is the launcher's own output, not rank 0's
                preexec_fn=before_exec(os.getpgrp()),
            )
            self._commands.append((command, process))
        self._last_heartbeat = dict.fromkeys(self._nodes, ("", time.monotonic()))

    def seconds_to_next_look(self) -> float:
        """Files have to be looked at: how long until then."""
        left = self.escalation.seconds_left()
        return POLL_S if left is None else min(POLL_S, left)

    def send(self, number: signal.Signals) -> None:
        """Have the agents send a signal."""
        self._folder.send(number)

    def send_to_groups(self, number: signal.Signals) -> None:
        """Have the agents send a signal; SIGKILL goes to all that a rank has started."""
        self._folder.send(number)
        if number == signal.SIGKILL and self._give_up_at is None:
            self._give_up_at = time.monotonic() + self._timeouts.linger

    def find_ended(self) -> list[RankEnd]:
        """The ranks that have ended; where none has, those that are lost."""
        now = time.monotonic()
        self._show_log()
        if now < self._look_again and not self.escalation.begun:
            return []
        self._look_again = now + min(STATE_POLL_S, (now - self._begun) / 20)
        ended: list[tuple[float, RankEnd]] = []
        self._look_at_nodes()
        for rank, spec in self.waiting.items():
            state = self._folder.read_state(rank)
            if state.started:
                self._started.add(rank)
            if state.exit_code is not None:
                ended.append((state.ended_at, RankEnd(spec, exit_code=state.exit_code)))
            elif state.signal is not None:
                ended.append((state.ended_at, self.killed_by(spec, state.signal)))
        self._show_log()
        # Clocks of nodes differ a little: the times only order what is found at the same look.
        ended.sort(key=lambda item: (item[1].signal is None, item[0], item[1].spec.rank))
        if self._failed_at is None and any(end.failed for _, end in ended):
            self._failed_at = time.monotonic()
        return [end for _, end in ended] or self._find_lost()

    def _show_log(self) -> None:
        self._shown.show(self._log.read_new())

    def _look_at_nodes(self) -> None:
        now = time.monotonic()
        for command, process in self._commands:
            if process.poll() is not None:
                for node in command.nodes:
                    self._starter_ended.setdefault(node, now)
        for node in self._nodes:
            heartbeat = self._folder.node_heartbeat(node).read_text(encoding="ascii")
            if heartbeat and heartbeat != self._last_heartbeat[node][0]:
                self._last_heartbeat[node] = (heartbeat, now)

    def _find_lost(self) -> list[RankEnd]:
        """A rank is lost where its starter has ended, or its node is silent, and there is no exit code."""
        now = time.monotonic()
        lost = []
        for rank, spec in self.waiting.items():
            why = self._why_lost(rank, spec.ranks.node, now)
            if why is not None:
                log_line(f"rank {rank} on {self._hosts[spec.ranks.node]} is lost: {why}")
                self._note_lost(rank, spec.ranks.node, why)
                lost.append(RankEnd(spec, exit_code=1))
        if lost and self.outcome.not_started and not self.escalation.begun:  # the others wait for it and know nothing
            self.send(signal.SIGTERM)
            self.escalation.after_stop()
        return lost

    def _note_lost(self, rank: int, node: int, why: str) -> None:
        """Take a node that was heard of, and is no more, for lost, unless a rank had failed before its silence."""
        heartbeat, since = self._last_heartbeat[node]
        if not heartbeat and rank not in self._started:
            if self._failed_at is None:
                self.outcome.not_started = f"{self._hosts[node]}: {why}"
        elif self._failed_at is None or since <= self._failed_at + _FIRST_S:
            names = dict.fromkeys((*self.outcome.lost_nodes, self._hosts[node]))
            self.outcome.lost_nodes, self.outcome.why_lost = tuple(names), why

    def _why_lost(self, rank: int, node: int, now: float) -> str | None:
        heartbeat, since = self._last_heartbeat[node]
        ended = self._starter_ended.get(node)
        command, process = next((c, p) for c, p in self._commands if node in c.nodes)
        name = Path(command.argv[0]).name
        # A starter may die of the TERM that its agent passes on: while the node is heard of, its ranks are at work.
        if ended is not None and now - max(ended, since) > self._timeouts.linger:
            return f"{name} ended with {process.returncode}, and the rank left no exit code"
        begun = bool(heartbeat) or rank in self._started
        if not begun and now - since > self._timeouts.start:
            return f"{name} has not started it within {self._timeouts.start:g} s"
        patience = self._timeouts.lost if self._failed_at is None else 2 * self._timeouts.linger
        if begun and now - since > patience:
            return f"its node has not been heard of for {patience:g} s"
        return None

    def escalate(self) -> None:
        """Send the next signal once its time has come; ranks that do not even answer to SIGKILL are given up."""
        super().escalate()
        if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
            for rank, spec in self.waiting.items():
                log_line(f"rank {rank} on {self._hosts[spec.ranks.node]} does not answer; giving it up")
                silent = time.monotonic() - self._last_heartbeat[spec.ranks.node][1]
                if silent > self._timeouts.linger and self.outcome.stopped_by is None:
                    self._note_lost(rank, spec.ranks.node, f"its node has not been heard of for {silent:.0f} s")
            self.record([self.killed_by(spec, signal.SIGKILL) for spec in self.waiting.values()])

    def close(self) -> None:
        """End what is left: agents by KILL and silence, starters by closing their input, then TERM."""
        if self.waiting and self._folder.path.exists():
            self._folder.send(signal.SIGKILL)
        for _, process in self._commands:
            if process.stdin is not None:
                process.stdin.close()
        deadline = time.monotonic() + self._timeouts.linger
        for _, process in self._commands:
            _end_process(process, deadline)
        self._heartbeat.stop()
        self._show_log()
        self._folder.remove()


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
