"""The processes of one launch: started, watched, stopped together, and gone at the end.

:func:`run_ranks` starts the ranks it is given and waits for them; the first one that fails decides how the launch
ended. No rank outlives the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from segdist.launch.console import STDOUT, say, write_all
from segdist.launch.outcome import Outcome, RankEnd, RankSpec, signal_name
from segdist.system.procfs import end_with_parent

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals that are passed on to every rank; after the first two the ranks have the grace time to end."""


def run_ranks(specs: Sequence[RankSpec], grace: float) -> Outcome:
    """Start every rank and wait for all of them; call it from the main thread.

    When a rank fails, the others have ``grace`` seconds to end by themselves; then the nodes' process groups
    get SIGTERM, and after another ``grace`` SIGKILL. A SIGTERM or SIGINT to this process goes to the ranks,
    which then have ``grace`` seconds until SIGKILL; SIGUSR1 goes to them and nothing else follows. What the
    ranks left running in their process groups is killed at the end, also where this function raises.

    Raises:
        OSError, subprocess.SubprocessError: where a rank cannot be started, or a log not written.
    """
    with signals_as_bytes() as signals, selectors.DefaultSelector() as selector:
        run = _Run(specs, grace, selector)
        selector.register(signals, selectors.EVENT_READ, lambda: run.forward(os.read(signals, 4096)))
        try:
            run.start()
            while run.waiting:
                for key, _ in selector.select(run.seconds_to_next_step()):
                    key.data()
                run.collect()
                run.escalate()
        finally:
            run.close()
    return run.outcome


@contextlib.contextmanager
def signals_as_bytes() -> Iterator[int]:
    """A pipe into which the interpreter writes the number of each signal that arrives; its reading end.

    A handler must be there for that, but all the work is done by who reads the pipe.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    earlier = {number: signal.getsignal(number) for number in (*FORWARDED, signal.SIGCHLD)}
    earlier_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        for number in earlier:
            signal.signal(number, lambda *_: None)
        yield reader
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier_writer)
        os.close(reader)
        os.close(writer)


class _Run:
    """The processes of one launch.

    Ended ranks stay zombies until :meth:`close`: so long, neither their process ids nor those of their groups
    can be given to a stranger, and every kill here hits what it is meant for.
    """

    def __init__(self, specs: Sequence[RankSpec], grace: float, selector: selectors.BaseSelector) -> None:
        self.outcome = Outcome()
        self.waiting: dict[int, RankSpec] = {}
        self._specs = specs
        self._grace = grace
        self._selector = selector
        self._processes: list[subprocess.Popen[bytes]] = []
        self._groups: dict[int, int] = {}
        self._escalation: deque[tuple[float, signal.Signals]] = deque()
        self._copy: _Copy | None = None
        self._killed = False

    def start(self) -> None:
        """Start every rank; the first one of a node leads the node's process group."""
        for spec in self._specs:
            node = spec.ranks.node
            with spec.log.open("wb", buffering=0) as log:
                process = subprocess.Popen(
                    spec.argv,
                    env={**os.environ, **spec.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if spec.rank == 0 else log,
                    stderr=subprocess.STDOUT,
                    bufsize=0,
                    preexec_fn=_before_exec(self._groups.get(node, 0), spec.cores),
                )
                self._processes.append(process)
                self._groups.setdefault(node, process.pid)
                self.waiting[process.pid] = spec
                if process.stdout is not None:
                    self._copy = _Copy(process.stdout.fileno(), os.dup(log.fileno()), self._selector)

    def seconds_to_next_step(self) -> float | None:
        """How long to wait for an event; None is without end."""
        return max(0.0, self._escalation[0][0] - time.monotonic()) if self._escalation else None

    def forward(self, numbers: bytes) -> None:
        """Pass signals on to every rank (to the rank alone: its own children are its own affair)."""
        for number in numbers:
            if number not in FORWARDED:
                continue
            say(f"was sent {signal_name(number)}; passing it on to {self._running()}")
            for pid in self.waiting:
                os.kill(pid, number)
            if number != signal.SIGUSR1:
                self._stop(number)

    def _stop(self, number: int) -> None:
        kill_at = time.monotonic() + self._grace
        if self._escalation:  # a failure, or an earlier signal, has set a time already
            kill_at = min(kill_at, self._escalation[-1][0])
        self._escalation = deque([(kill_at, signal.SIGKILL)])
        if self.outcome.stopped_by is None and self.outcome.failure is None:
            self.outcome.stopped_by = number

    def collect(self) -> None:
        """Record the ranks that have ended; at the first failure give the others their time.

        Of ranks found ended at the same moment, those killed by a signal count as the earlier ones: a rank
        that only lost its neighbour ends with an exit code.
        """
        ended = []
        for pid, spec in self.waiting.items():
            info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None:
                continue
            if info.si_code == os.CLD_EXITED:
                end = RankEnd(spec, exit_code=info.si_status)
            else:
                late = self._killed and info.si_status == signal.SIGKILL
                end = RankEnd(spec, signal=info.si_status, late_after=self.outcome.stopped_by if late else None)
            ended.append((pid, end))
        had_failed = self.outcome.failure is not None
        for pid, end in sorted(ended, key=lambda item: (item[1].signal is None, item[1].spec.rank)):
            del self.waiting[pid]
            self.outcome.ends.append(end)
        failure = self.outcome.failure
        stopping = bool(self._escalation) or self._killed
        if failure is not None and not had_failed and self.waiting and not stopping:
            now = time.monotonic()
            say(f"{failure}; waiting {self._grace:g} s for {self._running()} to end")
            self._escalation = deque([(now + self._grace, signal.SIGTERM), (now + 2 * self._grace, signal.SIGKILL)])

    def escalate(self) -> None:
        """Send the next signal to every node's process group once its time has come."""
        while self.waiting and self._escalation and self._escalation[0][0] <= time.monotonic():
            _, number = self._escalation.popleft()
            say(f"{self._running()} did not end in time; sending {number.name}")
            self._killed = number == signal.SIGKILL
            for leader in self._groups.values():
                os.killpg(leader, number)

    def close(self) -> None:
        """Kill what is left in the process groups, take rank 0's last output, and reap every rank."""
        for leader in self._groups.values():
            os.killpg(leader, signal.SIGKILL)
        try:
            if self._copy is not None:
                self._copy.close()
        finally:
            for process in self._processes:
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def _running(self) -> str:
        numbers = sorted(spec.rank for spec in self.waiting.values())
        return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else "no rank"


class _Copy:
    """Rank 0's output on its way from a pipe to its log and the launcher's stdout; all file descriptors."""

    def __init__(self, pipe: int, log: int, selector: selectors.BaseSelector) -> None:
        self._pipe = pipe
        self._log = log
        self._selector = selector
        self._shown = True
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
        write_all(self._log, data)
        if self._shown and not write_all(STDOUT, data):
            self._shown = False
            say("nobody reads the output any more; rank 0 goes on, and its log has the rest")
        return True

    def close(self) -> None:
        """Move what the rank left in the pipe, and close the log."""
        try:
            while self.move():
                pass
        finally:
            os.close(self._log)


def _before_exec(group: int, cores: Sequence[int]) -> Callable[[], None]:
    """What a child does between fork and exec: join its node, take the node's cores, die with the launcher."""
    die_with_launcher = end_with_parent(os.getpid(), signal.SIGKILL)

    def prepare() -> None:
        die_with_launcher()
        os.setpgid(0, group)
        os.sched_setaffinity(0, cores)

    return prepare
