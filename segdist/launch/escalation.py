"""From the first warning to SIGKILL: which signal processes that should end get next, and when."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable


class Escalation:
    """The signals that are still to come, each at its time.

    Args:
        grace: seconds to end in after the failure of another, and after each signal but SIGKILL.
        clock: seconds that only grow.
    """

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace = grace
        self.killed = False
        """Whether SIGKILL has become due."""
        self._clock = clock
        self._steps: deque[tuple[float, signal.Signals]] = deque()

    @property
    def begun(self) -> bool:
        """Whether an end has been set."""
        return self.killed or bool(self._steps)

    def after_failure(self) -> None:
        """One has failed, and the others know nothing of it: SIGTERM after the grace time, SIGKILL after another."""
        now = self._clock()
        self._steps = deque([(now + self.grace, signal.SIGTERM), (now + 2 * self.grace, signal.SIGKILL)])

    def after_stop(self) -> None:
        """All have been asked to stop: SIGKILL after the grace time, or earlier where that was set already."""
        kill_at = self._clock() + self.grace
        if self._steps:
            kill_at = min(kill_at, self._steps[-1][0])
        self._steps = deque([(kill_at, signal.SIGKILL)])

    def seconds_left(self) -> float | None:
        """Seconds until the next signal is due; None where none is to come."""
        return max(0.0, self._steps[0][0] - self._clock()) if self._steps else None

    def due(self) -> signal.Signals | None:
        """The next signal, once, when its time has come; else None."""
        if not self._steps or self._steps[0][0] > self._clock():
            return None
        _, number = self._steps.popleft()
        self.killed = self.killed or number == signal.SIGKILL
        return number
