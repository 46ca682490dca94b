"""Which signal comes when; the clock is the test's."""

import signal

import pytest

from segdist.launch.escalation import Escalation


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_comes_before_there_is_a_reason(clock: Clock) -> None:
    escalation = Escalation(10, clock)
    assert (escalation.due(), escalation.seconds_left(), escalation.begun) == (None, None, False)


def test_after_a_failure_term_comes_and_then_kill(clock: Clock) -> None:
    escalation = Escalation(10, clock)
    escalation.after_failure()
    assert (escalation.seconds_left(), escalation.due()) == (10, None)
    clock.now += 10
    assert (escalation.due(), escalation.due(), escalation.killed) == (signal.SIGTERM, None, False)
    clock.now += 10
    assert (escalation.due(), escalation.due(), escalation.killed) == (signal.SIGKILL, None, True)
    assert escalation.begun
    assert escalation.seconds_left() is None


def test_after_a_stop_signal_kill_comes_at_once_when_the_grace_time_is_over(clock: Clock) -> None:
    escalation = Escalation(10, clock)
    escalation.after_stop()
    clock.now += 12
    assert escalation.seconds_left() == 0
    assert escalation.due() == signal.SIGKILL


def test_a_stop_signal_never_makes_the_end_later(clock: Clock) -> None:
    escalation = Escalation(10, clock)
    escalation.after_failure()
    clock.now += 15
    escalation.after_stop()
    assert escalation.seconds_left() == 5, "as the failure has set it"
    escalation.after_stop()
    assert escalation.seconds_left() == 5


def test_without_grace_both_are_due_at_once(clock: Clock) -> None:
    escalation = Escalation(0, clock)
    escalation.after_failure()
    assert [escalation.due(), escalation.due(), escalation.due()] == [signal.SIGTERM, signal.SIGKILL, None]
