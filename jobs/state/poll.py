"""What schedulers say about jobs, asked for all jobs at once and not too often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from jobs.clusters import get_scheduler
from jobs.clusters.scheduler import Scheduler
from jobs.record.entry import Entry
from jobs.record.processes import is_alive
from jobs.record.run_json import Job

POLL_S = 10.0
"""Seconds between two calls to a scheduler. Its controller serves all users of the cluster."""


class Queue:
    """Answers of the schedulers; each is asked at most once in ``every_s`` seconds, for all jobs expected so far.

    The local cluster is asked each time: that costs a look at /proc.
    """

    def __init__(
        self,
        every_s: float = POLL_S,
        clock: Callable[[], float] = time.monotonic,
        schedulers: Callable[[str], Scheduler] = get_scheduler,
    ) -> None:
        self._every_s = every_s
        self._clock = clock
        self._schedulers = schedulers
        self._outputs: dict[str, dict[str, str]] = {}
        self._entries: dict[tuple[str, str], Entry] = {}
        self._asked: dict[str, float] = {}

    def expect(self, jobs: Iterable[Job]) -> None:
        """Jobs that will be asked for: the next call to their scheduler covers them."""
        for job in jobs:
            if job.cluster != "local":
                self._outputs.setdefault(job.cluster, {})[job.id] = job.output

    def entry(self, job: Job) -> Entry:
        """What is known about a job; never older than ``every_s``, but for a job that has ended."""
        if job.cluster == "local":
            alive = is_alive(job)
            return Entry("unknown" if alive is None else "running" if alive else "gone")
        self.expect([job])
        key = (job.cluster, job.id)
        known = self._entries.get(key)
        if known is not None and known.phase == "ended":
            return known
        asked = self._asked.get(job.cluster)
        if known is None or asked is None or self._clock() - asked >= self._every_s:
            self._ask(job.cluster)
        return self._entries[key]

    def _ask(self, cluster: str) -> None:
        open_ids = [
            one
            for one in self._outputs[cluster]
            if (cluster, one) not in self._entries or self._entries[cluster, one].phase != "ended"
        ]
        answers = self._schedulers(cluster).query(open_ids, self._outputs[cluster])
        self._entries.update({(cluster, one): answers[one] for one in open_ids})
        self._asked[cluster] = self._clock()
