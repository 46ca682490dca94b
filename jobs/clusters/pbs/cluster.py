"""PBS for ``jobs.submit``: one job a step through the plugin's executor, chained by dependencies.

A job's script runs :func:`jobs.runner.run.run_steps` on the first node, and that the launcher, which starts the ranks::

    qsub → bash → submitit → jobs.runner → python -m segdist.launch → pbs_tmrsh | pbsdsh | mpirun | ssh → ranks

A training that has saved before its walltime is continued by another job, and ends with 0 itself: so the jobs behind it
are not deleted. They find it unfinished and wait again, behind the continuation (:mod:`jobs.clusters.pbs.script`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.clusters.pbs.continuation import Continuation, query_continuations
from jobs.clusters.pbs.dialect import Dialect, find_dialect
from jobs.clusters.pbs.qstat import call, pbs_id
from jobs.clusters.pbs.resources import request_command
from jobs.clusters.pbs.states import JobState, unknown_ids
from jobs.clusters.request import Request
from jobs.clusters.scheduler import NOWHERE, SubmitError
from jobs.record.entry import Entry, Phase
from jobs.record.run_json import Job, PlannedRun
from segdist.config import ConfigError, require

if TYPE_CHECKING:
    from jobs.clusters.pbs.executor import PbsExecutor

_PHASES: dict[str, Phase] = {
    "PENDING": "waiting", "RUNNING": "running", "COMPLETING": "running", "UNKNOWN": "unknown", "GONE": "gone",
}  # fmt: skip


class Pbs:
    """The PBS server that ``qsub`` talks to."""

    name = "pbs"
    title = "PBS"

    def __init__(self, dialect: str = "auto") -> None:
        self._asked = dialect

    @functools.cached_property
    def dialect(self) -> Dialect:
        """Which PBS it is: as the profile says, or as qsub does."""
        return find_dialect(self._asked)

    def executor(self, request: Request) -> PbsExecutor:
        """The plugin's executor for a request; it makes the script, and submits it."""
        from submitit.core import plugins

        from jobs.clusters.pbs.request_executor import executor_of

        require(
            "pbs" in plugins.get_executors() and "pbs" in plugins.get_job_environments(),
            "--cluster pbs: submitit does not know the PBS plugin; install this package again: "
            "python -m pip install --editable .",
        )
        return executor_of(request, self.dialect)

    def submit_command(self, request: Request, script: str) -> list[str]:
        """The command that submits a script; the dependency and the array are on it, and not in the script."""
        return request_command(request, script, self.dialect)

    def withdraw(self, ids: Sequence[str], arrays: bool) -> None:
        """Take back jobs, or whole arrays, of a submission that was refused later on."""
        self._delete([f"{one}[]" if arrays else one for one in reversed(ids)])

    def tidy(self, planned: Sequence[PlannedRun], jobs: Sequence[tuple[Job, ...]]) -> None:
        """Delete the jobs whose dependency had failed before they were submitted: Torque would hold them for ever."""
        if self.dialect != "torque" or len(planned) > 1:
            return
        steps = planned[0].steps
        by_step = dict(zip((step.step for step in steps), jobs[0]))
        outputs = {job.id: job.output for job in jobs[0]}
        stuck: list[str] = []
        for step in steps:
            before = [by_step[other].id for other in step.after]
            if not step.always and any(one in stuck or _continuation(one, outputs).exit_code for one in before):
                stuck.append(by_step[step.step].id)
        self._delete(stuck)

    def query(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> Mapping[str, Entry]:
        """One qstat for all; the files of a job say which job continues it, and how one ended that is forgotten."""
        try:
            dialect = self.dialect
        except ConfigError as error:
            return {one: Entry("unknown", reason=str(error)) for one in ids}
        continuations = [_continuation(one, outputs) for one in ids]
        states = query_continuations(continuations, dialect)
        return {continuation.id: entry_of(states[continuation.id], continuation) for continuation in continuations}

    def cancel(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> None:
        """qdel the jobs that are at work for these, the last ones first, so that none starts in between.

        Torque may run a held job that was deleted before the one that it waits for: there the first one goes first.
        What starts in between finds the run cancelled, and does nothing.
        """
        order = list(ids) if self._speaks_torque() else list(reversed(ids))
        self._delete([pbs_id(_continuation(one, outputs).jobs[-1]) for one in order])

    def _speaks_torque(self) -> bool:
        try:
            return self.dialect == "torque"
        except ConfigError:  # qdel is the same in both
            return False

    def _delete(self, names: Sequence[str]) -> None:
        refused = []
        for name in names:  # with one that has ended among several, some servers stop there
            done = call(["qdel", name])
            over = unknown_ids(done.stderr, [name.replace("[", "_").rstrip("]_")]) or "finished" in done.stderr
            if done.returncode and not over and "invalid" not in done.stderr.lower():
                refused.append(done.stderr.strip() or f"exit code {done.returncode}")
        if refused:
            raise SubmitError(f"qdel: {'; '.join(refused)}")


def entry_of(state: JobState, continuation: Continuation) -> Entry:
    """A job's state as ``jobs.status`` wants it.

    A success without the script's own exit code is none: after the crash of a job's first node Torque says 0.
    """
    phase, starts = _PHASES.get(state.word, "ended"), continuation.starts
    if state.word == "COMPLETED" and starts and continuation.exit_code is None:
        why = "its script did not reach its end: its node was lost, or it was killed"
        return Entry(phase, "FAILED", why, state.hosts, state.elapsed_s, starts - 1)
    before = continuation.started_again
    again = f"started again by the server, {before} was its first node before" if before else ""
    restarts = max(0, starts - 1, state.runs - 1)
    return Entry(phase, state.word, state.text, state.hosts, state.elapsed_s, restarts, again)


def _continuation(identifier: str, outputs: Mapping[str, str]) -> Continuation:
    output = outputs.get(identifier, "")
    return Continuation(Path(output).parent if output else Path("/nonexistent"), identifier)
