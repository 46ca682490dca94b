"""``python -m jobs.cancel RUN``: end a job with all its processes, and say so in its results."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.clusters import get_scheduler
from jobs.clusters.scheduler import SubmitError
from jobs.record.endings import write_failure, write_skipped
from jobs.record.job_folder import CANCEL, cancelled_text
from jobs.record.processes import is_alive, job_processes
from jobs.record.run_json import Job
from jobs.state.elsewhere import is_heard_of, must_be_watched
from jobs.state.model import RunState
from jobs.state.poll import dialect_of
from jobs.state.read import the_run
from segdist.cli import path_argument, run_command
from segdist.config import ConfigError
from segdist.run.files import write_json
from segdist.run.result import utc_now
from segdist.system.plural import count_noun
from segdist.system.user import user_name

GRACE_S = 20.0
_POLL_S = 0.1
_KILL_S = 10.0
_SCHEDULER_POLL_S = 1.0


def cancel(run: Path, grace_s: float = GRACE_S) -> None:
    """Ask the job of a run to stop (TERM), end what is left after ``grace_s`` seconds (KILL), and record it.

    A second call finds nothing to do, and says so.

    Raises:
        ConfigError: where the job belongs to another host or user, or outlives KILL.
    """
    state = the_run(run)
    assert state.spec is not None  # the_run refuses a run without a run.json
    if not state.jobs:
        _cancel_submission(run, state)
        return
    if state.spec.cluster != "local":
        _cancel_at_scheduler(run, state, grace_s)
        return
    job, job_folder = state.jobs[0], state.job_folder
    if must_be_watched(state) and is_heard_of(state):
        raise ConfigError(f"{run}: job {job.id} runs on {job.host}, and its heartbeat goes on; cancel it there")
    living = [] if state.alive is None else job_processes(job.token)
    open_steps = [step for step in state.own_steps if step.result is None]
    if not state.alive and not living and not open_steps:
        print(f"{run}: nothing to cancel, job {job.id} has ended")
        return
    _write_request(job_folder)
    if state.alive or living:
        _end_processes(job, grace_s)
    else:
        print(f"job {job.id} was gone already")
    _record(run)


def _cancel_submission(run: Path, state: RunState) -> None:
    """Cancel a run of which no job is known: its submission is at it, and takes back what it submits, or has ended."""
    if state.alive is False:
        print(f"{run}: nothing to cancel, no job of it was submitted")
        return
    _write_request(state.job_folder)
    print(f"{run}: its submission was asked to stop")


def _write_request(job_folder: Path) -> None:
    if cancelled_text(job_folder) is None:
        write_json(job_folder / CANCEL, {"by": user_name(), "at": utc_now()})


def _cancel_at_scheduler(run: Path, state: RunState, grace_s: float) -> None:
    """Cancel every job of the run that has not ended, and wait until the scheduler says that they have."""
    ids = [job.id for job, entry in state.entries if entry.alive is not False]
    if not ids and state.alive is False:
        print(f"{run}: nothing to cancel, job {', '.join(job.id for job in state.jobs)} has ended")
        return
    _write_request(state.job_folder)
    assert state.spec is not None
    cluster = get_scheduler(state.spec.cluster, dialect_of(state.spec))
    outputs = {job.id: job.output for job in state.jobs}
    try:
        cluster.cancel(ids, outputs)
    except SubmitError as error:
        raise ConfigError(f"{run}: {error}") from error
    print(f"job {', '.join(ids)}: asked {state.jobs[0].cluster} to end {'it' if len(ids) == 1 else 'them'}", flush=True)
    deadline = time.monotonic() + grace_s + _KILL_S
    while alive := {one: entry for one, entry in cluster.query(ids, outputs).items() if entry.alive is not False}:
        if time.monotonic() > deadline:
            raise ConfigError(f"job {', '.join(alive)}: is there still; look again with python -m jobs.status {run}")
        time.sleep(_SCHEDULER_POLL_S)
        if waiting := [one for one, entry in alive.items() if entry.phase == "waiting"]:
            cluster.cancel(waiting, outputs)  # one that had just saved may go on in another job
    _record(run)


def _end_processes(job: Job, grace_s: float) -> None:
    def gone() -> bool:
        return not is_alive(job) and not job_processes(job.token)

    # The head passes TERM on, so that each part can wind up those it started; without a head all are asked.
    targets = [job.pid] if is_alive(job) else job_processes(job.token)
    asked, all_of_it = (count_noun(len(pids), "process", "processes") for pids in (targets, job_processes(job.token)))
    print(f"job {job.id}: asked {asked} to stop (TERM), {all_of_it} in all", flush=True)
    _signal(targets, signal.SIGTERM)
    if not _wait(gone, grace_s):
        left = count_noun(len(job_processes(job.token)), "process", "processes")
        print(f"job {job.id}: ended {left} that had not stopped after {grace_s:g} s (KILL)", flush=True)
        deadline = time.monotonic() + _KILL_S
        while not gone():
            if time.monotonic() > deadline:
                pids = " ".join(map(str, job_processes(job.token)))
                raise ConfigError(f"job {job.id}: processes {pids} outlive KILL; look at them with ps")
            _signal(job_processes(job.token), signal.SIGKILL)
            _wait(gone, _POLL_S)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise ConfigError(f"process {pid}: belongs to another user; ask its owner to cancel the job") from error


def _record(run: Path) -> None:
    """Write the results that the job could not write itself, and say how each step ended."""
    state = the_run(run)
    text = cancelled_text(state.job_folder) or "cancelled"
    failure: str | None = None
    for step in state.own_steps:
        result = step.result
        job = {"cluster": step.job.cluster, "id": step.job.id} if step.job is not None else {}
        if result is None and failure is None:
            result = write_failure(step.folder, text, job, step.started_at)
        elif result is None:
            result = write_skipped(step.folder, failure or text, job)
        if result.status == "failed" and failure is None:
            failure = f"{step.label} failed: {result.error}"
        print(f"{step.label}: {result.status}" + (f": {result.error}" if result.error else ""))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        "python -m jobs.cancel", description="End a job with all its processes; its results say so."
    )
    parser.add_argument("run", type=path_argument, help="run folder")
    parser.add_argument(
        "--grace", type=float, default=GRACE_S, metavar="SECONDS",
        help=f"time between TERM and KILL (default: {GRACE_S:g})",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return run_command(lambda: cancel(args.run, args.grace))


if __name__ == "__main__":
    sys.exit(main())
