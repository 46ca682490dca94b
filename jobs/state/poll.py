"""What schedulers say about jobs, asked for all jobs at once and not too often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from jobs.clusters import get_scheduler
from jobs.clusters.scheduler import Scheduler
from jobs.record.entry import Entry
from jobs.record.processes import is_alive
from jobs.record.run_json import Job, JobSpec

POLL_S = 10.0
"""Seconds between two calls to a scheduler. Its controller serves all users of the cluster."""


_Server = tuple[str, str]
"""A cluster, and the dialect that it is spoken to in."""


def dialect_of(spec: JobSpec) -> str:
    """The dialect of PBS that the profile named when a run was submitted, or "auto"."""
    return str(spec.profile.get("dialect") or "auto")


class Queue:
    """Answers of the schedulers; each is asked at most once in ``every_s`` seconds, for all jobs expected so far.

    The local cluster is asked each time: that costs a look at /proc.
    """

    def __init__(
        self,
        every_s: float = POLL_S,
        clock: Callable[[], float] = time.monotonic,
        schedulers: Callable[[str, str], Scheduler] = get_scheduler,
    ) -> None:
        self._every_s = every_s
        self._clock = clock
        self._schedulers = schedulers
        self._outputs: dict[_Server, dict[str, str]] = {}
        self._servers: dict[tuple[str, str], _Server] = {}
        self._entries: dict[tuple[str, str], Entry] = {}
        self._asked: dict[_Server, float] = {}

    def expect(self, jobs: Iterable[Job], dialect: str = "auto") -> None:
        """Jobs that will be asked for: the next call to their scheduler covers them.

        ``dialect`` is the one that the site's profile named when they were submitted (:func:`dialect_of`).
        """
        for job in jobs:
            if job.cluster != "local":
                server = self._servers.setdefault((job.cluster, job.id), (job.cluster, dialect))
                self._outputs.setdefault(server, {})[job.id] = job.output

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
        server = self._servers[key]
        asked = self._asked.get(server)
        if known is None or asked is None or self._clock() - asked >= self._every_s:
            self._ask(server)
        return self._entries[key]

    def _ask(self, server: _Server) -> None:
        cluster, dialect = server
        open_ids = [
            one
            for one in self._outputs[server]
            if (cluster, one) not in self._entries or self._entries[cluster, one].phase != "ended"
        ]
        answers = self._schedulers(cluster, dialect).query(open_ids, self._outputs[server])
        self._entries.update({(cluster, one): answers[one] for one in open_ids})
        self._asked[server] = self._clock()
