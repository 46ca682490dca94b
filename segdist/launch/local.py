"""Ranks as processes of this machine; a node is a process group with its share of the cores."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Sequence

from segdist.launch.child import before_exec
from segdist.launch.console import Rank0Output, RankLog
from segdist.launch.outcome import Outcome, RankEnd, RankSpec
from segdist.launch.supervisor import RankSupervisor


def run_ranks(specs: Sequence[RankSpec], grace: float) -> Outcome:
    """Start every rank and wait for all of them; call it from the main thread.

    When a rank fails, the others have ``grace`` seconds to end by themselves; then the nodes' process groups
    get SIGTERM, and after another ``grace`` SIGKILL. A SIGTERM or SIGINT to this process goes to the ranks,
    which then have ``grace`` seconds until SIGKILL; SIGUSR1 goes to them and nothing else follows. What the
    ranks left running in their process groups is killed at the end, also where this function raises. No rank outlives
    this process, however that ends.

    Raises:
        OSError, subprocess.SubprocessError: where a rank cannot be started, or a log not written.
    """
    return _LocalRanks(specs, grace).run()


class _LocalRanks(RankSupervisor):
    """The processes of one launch.

    Ended ranks stay zombies until :meth:`close`: so long, neither their process ids nor those of their groups
    can be given to a stranger, and every kill here hits what it is meant for.
    """

    def __init__(self, specs: Sequence[RankSpec], grace: float) -> None:
        super().__init__(specs, grace)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._groups: dict[int, int] = {}
        self._output: _OutputPipe | None = None

    def start(self, selector: selectors.BaseSelector) -> None:
        """Start every rank; the first one of a node leads the node's process group."""
        for spec in self.specs:
            node = spec.ranks.node
            with spec.log.open("wb", buffering=0) as log:
                process = subprocess.Popen(
                    spec.argv,
                    env={**os.environ, **spec.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if spec.rank == 0 else log,
                    stderr=subprocess.STDOUT,
                    bufsize=0,
                    preexec_fn=before_exec(self._groups.get(node, 0), spec.cores, hold=(signal.SIGUSR1,)),
                )
                self._processes[spec.rank] = process
                self._groups.setdefault(node, process.pid)
                if process.stdout is not None:
                    kept = RankLog(os.dup(log.fileno()), spec.log)
                    self._output = _OutputPipe(process.stdout.fileno(), kept, selector)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the ranks alone: their own children are their own affair."""
        for rank in self.waiting:
            os.kill(self._processes[rank].pid, number)

    def send_to_groups(self, number: signal.Signals) -> None:
        """Send a signal to every node's process group."""
        for leader in self._groups.values():
            os.killpg(leader, number)

    def find_ended(self) -> list[RankEnd]:
        """The ranks that have ended.

        Of ranks found ended at the same moment, those killed by a signal count as the earlier ones: a rank
        that only lost its neighbour ends with an exit code.
        """
        ended = []
        for rank, spec in self.waiting.items():
            info = os.waitid(os.P_PID, self._processes[rank].pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None:
                continue
            by_itself = info.si_code == os.CLD_EXITED
            ended.append(RankEnd(spec, exit_code=info.si_status) if by_itself else self.killed_by(spec, info.si_status))
        return sorted(ended, key=lambda end: (end.signal is None, end.spec.rank))

    def close(self) -> None:
        """Kill what is left in the process groups, take rank 0's last output, and reap every rank."""
        self.send_to_groups(signal.SIGKILL)
        try:
            if self._output is not None:
                self._output.close()
        finally:
            for process in self._processes.values():
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()


class _OutputPipe:
    """Rank 0's output on its way from a pipe to its log and the launcher's stdout; all file descriptors."""

    def __init__(self, pipe: int, log: RankLog, selector: selectors.BaseSelector) -> None:
        self._pipe = pipe
        self._log = log
        self._selector = selector
        self._shown = Rank0Output()
        os.set_blocking(pipe, False)
        selector.register(pipe, selectors.EVENT_READ, self.move)

    def move(self) -> bool:
        """Move what is in the pipe; False where there is nothing."""
        try:
            data = os.read(self._pipe, 1 << 16)
        except BlockingIOError:
            return False
        if not data:  # nobody holds the other end any more
            if self._pipe in self._selector.get_map():
                self._selector.unregister(self._pipe)
            return False
        self._log.write(data)
        self._shown.show(data)
        return True

    def close(self) -> None:
        """Move what the rank left in the pipe, and close the log."""
        try:
            while self.move():
                pass
        finally:
            os.close(self._log.descriptor)
