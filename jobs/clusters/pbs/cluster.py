"""PBS for ``jobs.submit``: one job a step through the plugin's executor, chained by dependencies.

A job's script runs :func:`jobs.runner.run.run_steps` on the first node, and that the launcher, which starts the ranks::

    qsub → bash → submitit → jobs.runner → python -m segdist.launch → pbs_tmrsh | pbsdsh | mpirun | ssh → ranks

A training that has saved before its walltime is continued by another job, and ends with 0 itself: so the jobs behind it
are not deleted. They find it unfinished and wait again, behind the continuation (:mod:`jobs.clusters.pbs.script`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.clusters.pbs.continuation import Continuation, query_continuations
from jobs.clusters.pbs.dialect import Dialect, find_dialect
from jobs.clusters.pbs.qstat import call, pbs_id
from jobs.clusters.pbs.script import After, script_text, submit_command
from jobs.clusters.pbs.states import JobState, unknown_ids
from jobs.clusters.scheduler import NOWHERE, PlannedRun, SubmitError, place_of, submit_steps
from jobs.planning.resources import Profile, Resources, walltime_seconds
from jobs.record.entry import Entry, Phase
from jobs.record.run_json import Job, Step
from segdist.config import ConfigError, require

if TYPE_CHECKING:
    from jobs.clusters.pbs.executor import PbsExecutor

_PHASES: dict[str, Phase] = {
    "PENDING": "waiting", "RUNNING": "running", "COMPLETING": "running", "UNKNOWN": "unknown", "GONE": "gone",
}  # fmt: skip


class Pbs:
    """The PBS server that ``qsub`` talks to."""

    def scripts(self, planned: Sequence[PlannedRun], resources: Resources, profile: Profile) -> Mapping[str, str]:
        """The batch script of every step, and the command that submits it; ids of other jobs stand as ``<id of …>``."""
        from jobs.clusters.pbs.executor import request

        dialect = find_dialect(profile.dialect)
        many = len(planned) > 1
        texts = {}
        for step in planned[0].steps:
            ids = {name: f"<id of {name}>" for name in step.after}
            executor = self._executor(planned, step, resources, profile, ids, dialect)
            values = {**executor.parameters, "dialect": dialect}
            text = script_text(request(executor._submitit_command_str, str(executor.folder), **values), dialect)
            elements = len(planned) if many else 0
            command = submit_command("SCRIPT", dialect, values["depend"], elements, resources.max_parallel)
            texts[step.step] = f"{text}# submitted by: {' '.join(command)}\n"
        return texts

    def submit(
        self, planned: Sequence[PlannedRun], resources: Resources, profile: Profile
    ) -> Sequence[tuple[Job, ...]]:
        """Submit the steps in order, each after those that it waits for; a sweep's runs are an array a step."""
        from submitit.core import plugins

        require(
            "pbs" in plugins.get_executors() and "pbs" in plugins.get_job_environments(),
            "--cluster pbs: submitit does not know the PBS plugin; install this package again: "
            "python -m pip install --editable .",
        )
        dialect = find_dialect(profile.dialect)
        found = submit_steps(
            "pbs",
            "PBS",
            planned,
            lambda step, ids: self._executor(planned, step, resources, profile, ids, dialect),
            lambda ids: self._withdraw(ids, len(planned) > 1),
        )
        if dialect == "torque" and len(planned) == 1:
            self._drop_stuck(planned[0].steps, found[0])
        return found

    def query(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> Mapping[str, Entry]:
        """One qstat for all; the files of a job say which job continues it, and how one ended that is forgotten."""
        try:
            dialect = find_dialect("auto")
        except ConfigError as error:
            return {one: Entry("unknown", reason=str(error)) for one in ids}
        continuations = [_continuation(one, outputs) for one in ids]
        states = query_continuations(continuations, dialect)
        return {
            continuation.id: entry_of(states[continuation.id], continuation.starts) for continuation in continuations
        }

    def cancel(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> None:
        """qdel the jobs that are at work for these, the last ones first, so that none starts in between."""
        self._delete([pbs_id(_continuation(one, outputs).jobs[-1]) for one in reversed(ids)])

    def _drop_stuck(self, steps: Sequence[Step], jobs: Sequence[Job]) -> None:
        """Delete the jobs whose dependency had failed before they were submitted: Torque would hold them for ever."""
        by_step = dict(zip((step.step for step in steps), jobs))
        outputs = {job.id: job.output for job in jobs}
        stuck: list[str] = []
        for step in steps:
            before = [by_step[other].id for other in step.after]
            if not step.always and any(one in stuck or _continuation(one, outputs).exit_code for one in before):
                stuck.append(by_step[step.step].id)
        self._delete(stuck)

    def _withdraw(self, ids: Mapping[str, str], arrays: bool) -> None:
        self._delete([f"{one}[]" if arrays else one for one in reversed(list(ids.values()))])

    def _delete(self, names: Sequence[str]) -> None:
        refused = []
        for name in names:  # with one that has ended among several, some servers stop there
            done = call(["qdel", name])
            over = unknown_ids(done.stderr, [name.replace("[", "_").rstrip("]_")]) or "finished" in done.stderr
            if done.returncode and not over and "invalid" not in done.stderr.lower():
                refused.append(done.stderr.strip() or f"exit code {done.returncode}")
        if refused:
            raise SubmitError(f"qdel: {'; '.join(refused)}")

    def _executor(
        self,
        planned: Sequence[PlannedRun],
        step: Step,
        resources: Resources,
        profile: Profile,
        ids: Mapping[str, str],
        dialect: Dialect,
    ) -> PbsExecutor:
        from jobs.clusters.pbs.executor import PbsExecutor

        class Executor(PbsExecutor):
            @classmethod
            def name(cls) -> str:
                return "pbs"

            @classmethod
            def affinity(cls) -> int:
                return 2  # a script can be shown where there is no PBS

        array = len(planned) > 1
        folder, name = place_of(planned, step)
        executor = Executor(folder, python=profile.python or None)
        values = parameters(step, resources, profile, name, planned[0].cwd, dialect)
        after = [ids[other] for other in step.after]
        values["after"] = tuple(
            After(f"{executor.folder}/{one}{'_%a' if array else ''}", ok=not step.always) for one in after
        )
        values["depend"] = depend(after, step.always, array, dialect)
        executor.update_parameters(**values)
        return executor


def parameters(
    step: Step, resources: Resources, profile: Profile, name: str, cwd: str, dialect: Dialect
) -> dict[str, Any]:
    """The plugin's parameters for one step: its function runs once, on the first node.

    Raises:
        ConfigError: for an option that the dialect does not know.
    """
    place, options = "", []
    for option in resources.options:
        if option == "exclusive":
            require(
                dialect == "pbspro",
                'options "exclusive": Torque has none; ask for all cores of a node with --cores-per-node',
            )
            place = "scatter:excl"
        else:
            options.append(option)
    cores = resources.cores_per_node if step.task != "report" else None
    return {
        "job_name": name,
        "nodes": step.nodes,
        "tasks_per_node": step.ranks_per_node,
        "ncpus": max(cores or 1, step.ranks_per_node),
        "time": walltime_seconds(resources.walltime) / 60 if resources.walltime else None,
        "queue": resources.queue or "",
        "account": resources.account or "",
        "properties": tuple(filter(None, (resources.constraint or "").split(":"))),
        "place": place,
        "options": tuple(options),
        "dialect": dialect,
        "array_parallelism": resources.max_parallel,
        "umask": profile.umask,
        "cwd": cwd,
        "setup": list(profile.setup),
        "stderr_to_stdout": True,
        "signal_delay_s": None,
        "save_margin_s": profile.signal_before_s,
        "use_starter": False,
    }


def depend(ids: Sequence[str], always: bool, array: bool, dialect: Dialect) -> str:
    """The value of ``-W depend=``.

    A run of a sweep goes on where its own earlier step has succeeded, whatever became of the others: so it waits for
    the end of the array, and looks at its own then.
    """
    if not ids:
        return ""
    if array:
        kind = "afteranyarray" if dialect == "torque" else "afterany"
        return ":".join([kind, *(f"{one}[]" for one in ids)])
    return ":".join(["afterany" if always else "afterok", *ids])


def entry_of(state: JobState, starts: int) -> Entry:
    """A job's state as ``jobs.status`` wants it."""
    phase = _PHASES.get(state.word, "ended")
    restarts = max(0, starts - 1, state.runs - 1)
    return Entry(phase, state.word, state.text, state.hosts, state.elapsed_s, restarts)


def _continuation(identifier: str, outputs: Mapping[str, str]) -> Continuation:
    output = outputs.get(identifier, "")
    return Continuation(Path(output).parent if output else Path("/nonexistent"), identifier)
