"""Tells all ranks when one fails or stalls, and which; else they would only know that a connection broke.

Each rank has a thread that says in the ranks' store where the rank is, and looks there for a failure. It has a
connection of its own, so it also works while the main thread waits in a collective operation that has no time-out, as
those of oneCCL.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from segdist.system.ranks import Ranks

HEARTBEAT_S = 1.0
"""Seconds between two heartbeats."""
SILENT_S = 5.0
"""Seconds without a heartbeat after which a rank counts as gone."""
GRACE_S = 20.0
"""Seconds that rank 0 has, once another rank is known to have failed, to end by itself with its result written."""
ACTIVITIES = (
    "waits for its images",
    "forward pass",
    "exchanges the loss",
    "backward pass",
    "saves",
    "validates",
    "adds up the validation",
)
"""What a rank does in a step and after an epoch, in this order."""
_FAILURE = "failure"


class Watchdog:
    """Watches the ranks of one job.

    Args:
        ranks: who is asking.
        store: of the job, over a connection that nothing else uses.
        timeout: seconds without progress after which a rank has stalled; it counts from the first :meth:`heartbeat`.
        end: ends the process at once with an exit code.
    """

    def __init__(self, ranks: Ranks, store: Store, timeout: float, end: Callable[[int], object] = os._exit) -> None:
        self.ranks = ranks
        self._store = store
        self._timeout = timeout
        self._end = end
        self._at: tuple[int, str] = (0, "")
        self._moved = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._failure = ""
        store.set_timeout(datetime.timedelta(seconds=SILENT_S))
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def heartbeat(self, step: int, activity: str) -> None:
        """This rank has moved on: it is in step ``step`` (from 0), doing ``activity``."""
        self._at = (step + 1, activity)
        self._moved = time.monotonic()

    def report_failure(self, error: str) -> None:
        """This rank has failed by itself: let the others know before they lose it. The first one counts."""
        self._closed.set()
        step, activity = self._at
        place = f" at step {step} ({activity})" if activity else ""
        try:
            with self._use_store():
                self._publish(f"rank {self.ranks.rank} failed{place}: {error}")
        except _StoreLost as lost:
            print(f"warning: the other ranks cannot be told ({lost})", file=sys.stderr, flush=True)
        self._wait_until_told()

    def acknowledge(self) -> None:
        """This rank ends for what another said already."""
        self._closed.set()
        with contextlib.suppress(_StoreLost), self._use_store():
            self._store.set(self._told_key(self.ranks.rank), "yes")

    def explain(self, error: BaseException) -> str:
        """What is behind a broken connection: what a rank said before it failed, or which ranks are silent."""
        self._closed.set()
        try:
            with self._use_store():
                return self._read_failure() or self._who_is_silent() or f"a connection was lost: {_line(error)}"
        except _StoreLost as lost:
            return f"rank 0 is gone or does not answer ({lost}); its log or the launcher's says why"

    def close(self) -> None:
        """All ranks have come to their end; stop watching."""
        self._closed.set()
        self._thread.join(2 * HEARTBEAT_S)

    # The thread ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        beats = 0
        while not self._closed.wait(HEARTBEAT_S):
            step, activity = self._at
            stalled = bool(activity) and time.monotonic() - self._moved > self._timeout
            beats += 1
            try:
                with self._use_store():
                    self._store.set(self._heartbeat_key(self.ranks.rank), f"{beats}|{step}|{activity}")
                    failure = self._read_failure() or (self._name_the_stalled() if stalled else "")
            except _StoreLost as lost:
                failure = f"rank 0 is gone or does not answer ({lost})"
            if failure:
                self._end_on(failure)
                return

    def _end_on(self, failure: str) -> None:
        """End, unless the main thread does so by itself: where others end, its collective operation fails.

        Rank 0 has a result to write, so the others go first.
        """
        if not self._closed.wait(GRACE_S if self.ranks.rank == 0 else HEARTBEAT_S):
            print(f"error: {failure}", file=sys.stderr, flush=True)
            self._end(1)

    # The store -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _use_store(self) -> Iterator[None]:
        """The store for this thread alone; raises _StoreLost where it is gone, or rank 0, who serves it, is frozen."""
        if not self._lock.acquire(timeout=SILENT_S):
            raise _StoreLost(f"no answer for {SILENT_S:g} s")
        try:
            yield
        except (dist.DistError, RuntimeError) as error:
            raise _StoreLost(_line(error)) from error
        finally:
            self._lock.release()

    def _publish(self, text: str) -> str:
        """Make ``text`` the failure that all ranks read, unless there is one; returns the one that counts."""
        self._failure = _text(self._store.compare_set(_FAILURE, "", text))
        self._store.set(self._told_key(self.ranks.rank), "yes")
        return self._failure

    def _read_failure(self) -> str:
        if not self._failure and self._store.check([_FAILURE]):
            self._failure = _text(self._store.get(_FAILURE))
            self._store.set(self._told_key(self.ranks.rank), "yes")
        return self._failure

    def _name_the_stalled(self) -> str:
        """The rank that is least far holds up the others."""
        step, _, rank, activity = min(self._whereabouts(rank) for rank in range(self.ranks.world))
        return self._publish(f"rank {rank} stalled at step {step} ({activity}): no progress for {self._timeout:g} s")

    def _whereabouts(self, rank: int) -> tuple[int, int, int, str]:
        """(step, the activity's order in it, rank, activity)."""
        if not self._store.check([self._heartbeat_key(rank)]):
            return 0, 0, rank, "not there yet"
        _, step, activity = _text(self._store.get(self._heartbeat_key(rank))).split("|", 2)
        order = ACTIVITIES.index(activity) if activity in ACTIVITIES else 0
        return int(step), order, rank, activity or "not training yet"

    def _who_is_silent(self) -> str:
        """Look for heartbeats for a while: the ranks that send none."""
        silent = {rank: self._last_heartbeat(rank) for rank in range(self.ranks.world) if rank != self.ranks.rank}
        end = time.monotonic() + SILENT_S
        while silent and time.monotonic() < end:
            time.sleep(HEARTBEAT_S / 4)  # a heartbeat comes once in HEARTBEAT_S; no event tells of its absence
            if self._read_failure():
                return self._failure
            silent = {rank: beat for rank, beat in silent.items() if self._last_heartbeat(rank) == beat}
        gone = []
        for rank in silent:
            step, _, _, activity = self._whereabouts(rank)
            gone.append(f"rank {rank} is gone without a word, last seen at step {step} ({activity})")
        if not gone:
            return ""
        more = f" and {len(gone) - 4} more" if len(gone) > 4 else ""
        return f"{'; '.join(gone[:4])}{more}: killed, perhaps for memory; the launcher's log says how it ended"

    def _last_heartbeat(self, rank: int) -> str:
        key = self._heartbeat_key(rank)
        return _text(self._store.get(key)) if self._store.check([key]) else ""

    def _wait_until_told(self) -> None:
        """Rank 0 serves the store: it waits a moment until the others have read why."""
        if self.ranks.rank != 0:
            return
        told = [self._told_key(rank) for rank in range(1, self.ranks.world)]
        end = time.monotonic() + 3 * HEARTBEAT_S
        while time.monotonic() < end:
            with contextlib.suppress(_StoreLost), self._use_store():
                if self._store.check(told):
                    return
            time.sleep(HEARTBEAT_S / 20)

    @staticmethod
    def _heartbeat_key(rank: int) -> str:
        return f"at/{rank}"

    @staticmethod
    def _told_key(rank: int) -> str:
        return f"failure-told/{rank}"


class _StoreLost(Exception):
    pass


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone or late (in gloo's words)."""
    signs = ("gloo/", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Application timeout")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
