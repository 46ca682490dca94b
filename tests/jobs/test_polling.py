"""How often files are looked at while a job runs: the log often, everything else seldom."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs import logs
from segdist.launch import remote

_opened: list[str] = []
_watching = [False]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching[0] and event in ("open", "os.scandir", "os.listdir"):
        _opened.append(str(arguments[0]))


sys.addaudithook(_audit)  # for the life of the process; it only looks where it is told to


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_following_a_log_for_a_minute_reads_the_other_files_every_few_seconds(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.submit("train", "--run", "runs/one", "--wait", stand_in="train=ok") == 0
    clock, run = Clock(), Path("runs/one").resolve()
    real, looks = logs.the_run, []

    def the_run(path: Path, queue: Any) -> Any:
        looks.append(clock.now)
        state = real(path, queue)
        ended = clock.now > 1060
        object.__setattr__(state, "alive", not ended)
        for step in state.steps:
            object.__setattr__(step, "result", step.result if ended else None)
        return state

    monkeypatch.setattr(logs, "the_run", the_run)
    monkeypatch.setattr(logs, "time", clock)
    _opened.clear()
    _watching[0] = True
    try:
        logs.follow(run, io.StringIO(), rank=0)
    finally:
        _watching[0] = False
    of_log = [path for path in _opened if path.endswith("rank0.log")]
    others = [path for path in _opened if str(run) in path and path not in of_log]
    assert 150 <= len(of_log) <= 260  # each 0.3 s
    late = [moment for moment in looks if 1030 < moment < 1060]
    assert 8 <= len(late) <= 12  # each 3 s
    assert len(looks) < 60
    assert len(others) <= 8 * len(looks)


class Ranks(remote._RemoteRanks):
    """A launch of no ranks, that notes when it looks at the agents' files."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.looks = clock, list[float]()
        self.waiting, self.escalation = {}, SimpleNamespace(begun=False)  # type: ignore[assignment]
        self._begun, self._look_again, self._failed_at = clock.now, 0.0, None

    def _show_log(self) -> None:
        return

    def _look_at_nodes(self) -> None:
        self.looks.append(self.clock.now)

    def _find_lost(self) -> list[Any]:
        return []

    def run_for(self, seconds: float) -> list[float]:
        """Look as the launcher does; gives the moments at which files were read."""
        end = self.clock.now + seconds
        self.looks.clear()
        while self.clock.now < end:
            self.find_ended()
            self.clock.sleep(remote.POLL_S)
        return list(self.looks)


def test_the_states_of_ranks_are_read_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(remote.time, "monotonic", clock.monotonic)
    ranks = Ranks(clock)
    assert len(ranks.run_for(5)) >= 15  # a short job's end is noticed at once
    ranks.run_for(55)
    assert 28 <= len(ranks.run_for(60)) <= 31
    ranks.escalation.begun = True
    assert len(ranks.run_for(2)) == 8  # and so is an end that was asked for
