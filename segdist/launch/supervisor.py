"""The ranks of one launch from their start to their end: watched, stopped together, and gone at the end.

The first rank that fails decides how the launch ended. How a rank is started, told of a signal and found ended is the
affair of a subclass: processes of this machine (:mod:`segdist.launch.local`), or of other nodes
(:mod:`segdist.launch.remote`).
"""

from __future__ import annotations

import abc
import os
import selectors
import signal
from collections.abc import Sequence

from segdist.launch.console import log_line
from segdist.launch.escalation import Escalation
from segdist.launch.outcome import Outcome, RankEnd, RankSpec, signal_name
from segdist.system.signal_pipe import signal_pipe

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals that are passed on to every rank; after the first two the ranks have the grace time to end."""


class RankSupervisor(abc.ABC):
    """One launch. ``waiting`` holds the ranks that have not ended, by number."""

    def __init__(self, specs: Sequence[RankSpec], grace: float) -> None:
        self.specs = specs
        self.outcome = Outcome()
        self.waiting = {spec.rank: spec for spec in specs}
        self.escalation = Escalation(grace)

    def run(self) -> Outcome:
        """Start the ranks and wait for all of them; from the main thread."""
        with signal_pipe((*FORWARDED, signal.SIGCHLD)) as signals, selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ, lambda: self.forward(os.read(signals, 4096)))
            try:
                self.start(selector)
                while self.waiting:
                    for key, _ in selector.select(self.seconds_to_next_look()):
                        key.data()
                    self.record(self.find_ended())
                    self.escalate()
            finally:
                self.close()
        return self.outcome

    @abc.abstractmethod
    def start(self, selector: selectors.BaseSelector) -> None:
        """Start every rank; what is registered with the selector has a function without arguments as its data."""

    @abc.abstractmethod
    def find_ended(self) -> list[RankEnd]:
        """The waiting ranks that have ended, in the order in which they count."""

    @abc.abstractmethod
    def send(self, number: signal.Signals) -> None:
        """Send a signal to every waiting rank."""

    @abc.abstractmethod
    def send_to_groups(self, number: signal.Signals) -> None:
        """Send a signal to every rank and to what it has started."""

    @abc.abstractmethod
    def close(self) -> None:
        """End whatever is left; called once, also where :meth:`start` raised."""

    def seconds_to_next_look(self) -> float | None:
        """How long to wait for an event; None is without end."""
        return self.escalation.seconds_left()

    def forward(self, numbers: bytes) -> None:
        """Pass signals that this process was sent on to every rank."""
        for number in numbers:
            if number not in FORWARDED:
                continue
            log_line(f"was sent {signal_name(number)}; passing it on to {self.running()}")
            self.send(signal.Signals(number))
            if number != signal.SIGUSR1:
                self.escalation.after_stop()
                if self.outcome.stopped_by is None and self.outcome.failure is None:
                    self.outcome.stopped_by = number

    def record(self, ends: Sequence[RankEnd]) -> None:
        """Take ranks that have ended into the outcome; at the first failure give the others their time."""
        had_failed = self.outcome.failure is not None
        for end in ends:
            del self.waiting[end.spec.rank]
            self.outcome.ends.append(end)
        failure = self.outcome.failure
        if failure is not None and not had_failed and self.waiting and not self.escalation.begun:
            log_line(f"{failure}; waiting {self.escalation.grace:g} s for {self.running()} to end")
            self.escalation.after_failure()

    def killed_by(self, spec: RankSpec, number: int) -> RankEnd:
        """The end of a rank by a signal; by one of ours where it had its time."""
        late = self.escalation.killed and number == signal.SIGKILL
        return RankEnd(spec, signal=number, late_after=self.outcome.stopped_by if late else None)

    def escalate(self) -> None:
        """Send the next signal once its time has come."""
        while self.waiting and (number := self.escalation.due()) is not None:
            log_line(f"{self.running()} did not end in time; sending {number.name}")
            self.send_to_groups(number)

    def running(self) -> str:
        """The waiting ranks, for messages: ``ranks 0, 3``."""
        numbers = sorted(self.waiting)
        return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else "no rank"
