"""What a process of the launch does between fork and exec."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

from segdist.system.procfs import end_with_parent


def before_exec(group: int, cores: Sequence[int] = (), hold: Sequence[signal.Signals] = ()) -> Callable[[], None]:
    """A ``preexec_fn``: die with this process, join a process group, take the cores.

    Args:
        group: the process group to join; 0 leads one of its own. Never a session: a scheduler ends the processes of a
            job by their sessions.
        cores: cores to run on; none leaves them as they are.
        hold: signals that wait until the process lets them in (``pthread_sigmask``), once it has a handler.
    """
    die_with_parent = end_with_parent(os.getpid(), signal.SIGKILL)

    def prepare() -> None:
        die_with_parent()
        os.setpgid(0, group)
        if cores:
            os.sched_setaffinity(0, cores)
        signal.pthread_sigmask(signal.SIG_BLOCK, hold)

    return prepare
