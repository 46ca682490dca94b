"""Signals that ask a training to stop: they set a flag, and the ranks agree on the step at which they stop.

A thread reads them from a pipe (:mod:`segdist.system.signal_pipe`), so they are seen at once also while the main
thread waits inside a collective operation.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from segdist.system.signal_pipe import open_signal_pipe

STOPPING = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Which signal asked to stop, if one did. A second INT (Ctrl-C) ends the process at once.

    TERM may come several times, from the scheduler and from the launcher: each means the same.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interrupts = 0

    def __bool__(self) -> bool:
        return self.signal is not None

    def install(self) -> StopFlag:
        """Take the signals over; from the main thread, once."""
        reader = open_signal_pipe(STOPPING)
        threading.Thread(target=self._read, args=(reader,), name="signals", daemon=True).start()
        return self

    def _read(self, reader: int) -> None:
        while numbers := os.read(reader, 512):
            for number in numbers:
                self.handle(number)

    def handle(self, number: int) -> None:
        """Set the flag for a signal that asks to stop; the first one is kept."""
        if number not in STOPPING:
            return
        if number == signal.SIGINT:
            self._interrupts += 1
        if self._interrupts > 1:
            print("SIGINT for the second time: ends now", file=sys.stderr, flush=True)
            os._exit(128 + number)
        if self.signal is None:
            self.signal = signal.Signals(number)


def ignore_walltime_warning() -> None:
    """For tasks that cannot be continued: SIGUSR1, by which a scheduler warns of the end, changes nothing."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))


def leave_signals_to_the_rank(_worker: int = 0) -> None:
    """For a rank's own children (decoding processes): who is asked to stop is the rank, and it ends them."""
    signal.set_wakeup_fd(-1)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
