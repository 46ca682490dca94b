"""A function submitted without a walltime of its own: the signal before the end makes a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from submitit.core import utils

from jobs.clusters.pbs.environment import PbsJobEnvironment

_NUMBERS = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def own_signals() -> Iterator[None]:
    """What submitit does to the signals is undone."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_job_without_a_walltime_has_not_timed_out(tmp_path: Path) -> None:
    """submitit compares the time that went by with the walltime, and met None there: a TypeError, and no checkpoint."""
    delayed = utils.DelayedSubmission(print)
    delayed.set_timeout(None, 3)  # type: ignore[arg-type]
    environment = PbsJobEnvironment()
    environment._handle_signals(utils.JobPaths(tmp_path, "7"), delayed)
    handler = signal.getsignal(environment._usr_sig()).__self__  # type: ignore[union-attr]
    assert handler.has_timed_out() is False
    delayed.set_timeout(0, 3)
    assert handler.has_timed_out() is True
