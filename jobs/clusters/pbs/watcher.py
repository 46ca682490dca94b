"""submitit's view of the queue: one call for all registered jobs."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from submitit.core import core

from jobs.clusters.pbs.continuation import Continuation, query_continuations
from jobs.clusters.pbs.dialect import Dialect, ask_version, dialect_of
from jobs.clusters.pbs.qstat import Call, call, qstat_command
from jobs.clusters.pbs.states import read_jobs


@functools.lru_cache
def server_dialect() -> Dialect:
    """The dialect of the ``qstat`` on PATH, found once."""
    return dialect_of(ask_version(["qstat", "--version"]))


class PbsInfoWatcher(core.InfoWatcher):
    """Asks qstat for all open jobs at once; the files that a job leaves decide where qstat forgets.

    submitit's own throws a whole answer away when the exit code is not 0. Here one unknown id spoils nothing, and a
    server that does not answer leaves every state as it was.
    """

    def __init__(self, delay_s: int = 60, run: Call = call) -> None:
        super().__init__(delay_s)
        self._run = run
        self._chains: dict[str, Continuation] = {}

    def follow(self, job_id: str, folder: Path) -> None:
        """Where the files of a job are."""
        self._chains[job_id] = Continuation(folder, job_id)

    def _make_command(self) -> list[str] | None:
        ids = sorted(self._continuation(one).jobs[-1] for one in self._registered - self._finished)
        return qstat_command(ids, server_dialect()) if ids else None

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """The states in an answer of qstat: id → ``{"JobID", "State", "Reason"}``."""
        text = string.decode() if isinstance(string, bytes) else string
        jobs = read_jobs(text, server_dialect()) or {}
        return {one: {"JobID": one, "State": state.word, "Reason": state.text} for one, state in jobs.items()}

    def update(self) -> None:
        """Ask for every job that has not ended."""
        open_ids = sorted(self._registered - self._finished)
        if not open_ids:
            return
        self._num_calls += 1
        states = query_continuations([self._continuation(one) for one in open_ids], server_dialect(), self._run)
        self._last_status_check = time.time()
        for one, state in states.items():
            if state.word == "UNKNOWN" and one in self._info_dict:
                continue
            self._info_dict[one] = {
                "JobID": one,
                "State": state.word,
                "Reason": state.text,
                "NodeList": state.hosts,
                "ExitCode": "" if state.exit_code is None else str(state.exit_code),
            }
            if self.is_done(one, mode="cache"):
                self._finished.add(one)

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """Slurm's word for the job's state; ``mode`` is force, standard or cache, as in submitit."""
        return self.get_info(job_id, mode=mode).get("State") or "UNKNOWN"

    def _continuation(self, job_id: str) -> Continuation:
        return self._chains.get(job_id) or Continuation(Path("/nonexistent"), job_id)
