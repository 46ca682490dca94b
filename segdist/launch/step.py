"""One step of a run from its ranks' start to its recorded end: logs, ``result.json``, exit code, restart.

The first rank that fails decides the exit code and is named in the last line: the others mostly report that they
lost a neighbour. Ranks that end with :data:`TO_BE_CONTINUED` have saved their work; where the scheduler can start
the job again, the launcher asks it to.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import platform
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from segdist import __version__
from segdist.config import ConfigError
from segdist.launch.allocation import THIS_MACHINE, Allocation
from segdist.launch.console import log_line, write_all
from segdist.launch.local import run_ranks
from segdist.launch.outcome import Outcome, RankSpec
from segdist.launch.pbs_job import save_before_job_end
from segdist.launch.srun import early_warning, is_requeued, requeue, run_srun
from segdist.launch.start_attempts import run_with_starters
from segdist.run.exit_codes import TO_BE_CONTINUED
from segdist.run.file_system import replace_file
from segdist.run.files import explain, list_names
from segdist.run.folder import StepFolder
from segdist.run.lease_owner import other_owner
from segdist.run.lost_nodes import note_lost_nodes
from segdist.run.result import Result, ResultError, job_of, utc_now
from segdist.system.log_tail import last_lines
from segdist.system.output import STDERR

MAX_RESTARTS = 10

_TAIL_LINES = 20


def launch(
    specs: Sequence[RankSpec],
    grace: float,
    step: StepFolder,
    allocation: Allocation = THIS_MACHINE,
    max_restarts: int = MAX_RESTARTS,
    starters: Sequence[str] = ("local",),
) -> int:
    """Run the ranks of one step and return the launcher's exit code; call it from the main thread.

    Where the ranks left no result of this launch, a ``result.json`` with status "failed" is written for them, unless
    the step goes on in a restart. The reason comes last on stderr, under the last lines of the log of the rank that
    failed first.

    Raises:
        ConfigError: where the log folder cannot be made.
    """
    rotate_logs(step)
    started_at, started = utc_now(), time.monotonic()
    before = _identity(step.result_json)
    try:
        outcome = _run(specs, grace, step, allocation, starters)
    except (OSError, subprocess.SubprocessError, ConfigError) as problem:
        error = f"the ranks could not be started ({str(problem).strip()})"
        record_failure(step, error, started_at, time.monotonic() - started, specs[0].log, allocation)
        write_all(STDERR, f"error: {error}; exit code 1\n".encode(errors="replace"))
        return 1
    fresh = _identity(step.result_json) not in (None, before)
    if outcome.failure is None and fresh:
        return 0
    if outcome.failure is None:
        exit_code, log = 1, specs[0].log
        reason = error = f"{outcome}, but none wrote {step.result_json}"
    else:
        exit_code, log = outcome.exit_code, outcome.failure.spec.log
        if outcome.lost_nodes:
            note_lost_nodes(step, outcome.lost_nodes, outcome.why_lost, allocation.job_id, allocation.restarts)
        stays, why = _will_continue(outcome, allocation, max_restarts)
        if stays:
            log_line(why)
            if outcome.lost_nodes and fresh:  # of a rank that lost its neighbour
                step.result_json.unlink(missing_ok=True)
            return TO_BE_CONTINUED
        reason = error = f"{outcome}: {why}" if why else str(outcome)
        if exit_code == TO_BE_CONTINUED:
            exit_code = 128 + (outcome.stopped_by or signal.SIGTERM)
        elif outcome.failure.signal is None:
            error = ": ".join([reason, *([outcome.said] if outcome.said else last_lines(log, 1))])[:500]
            reason = error if outcome.said else reason
    cause_is_elsewhere = outcome.failure is not None and outcome.failure.spec.rank != 0 and exit_code not in (2, 3)
    if not fresh or cause_is_elsewhere:  # rank 0 then knows only that it lost a neighbour
        record_failure(step, error, started_at, time.monotonic() - started, log, allocation)
    _show_tail(log)
    if outcome.failure is not None and outcome.exit_code == 128 + signal.SIGKILL:
        log_line("who sends SIGKILL: mostly the kernel or the scheduler where memory has run out (see dmesg)")
    if f"exit code {exit_code}" not in reason:
        reason += f"; exit code {exit_code}"
    write_all(STDERR, f"error: {reason}; log: {log}\n".encode(errors="replace"))
    return exit_code


def _show_tail(log: Path) -> None:
    log_line(f"the last lines of {log}:")
    for line in last_lines(log, _TAIL_LINES):
        write_all(STDERR, f"  | {line}\n".encode(errors="replace"))


def _run(
    specs: Sequence[RankSpec], grace: float, step: StepFolder, allocation: Allocation, starters: Sequence[str]
) -> Outcome:
    if starters[0] == "srun":
        return run_srun(specs, grace, allocation.hosts)
    # Slurm warns a job before its end; in a PBS job the launcher has to look at the clock itself.
    unwarned = allocation.scheduler == "pbs" and step.task == "train"
    with save_before_job_end() if unwarned else contextlib.nullcontext():
        if starters[0] == "local":
            return run_ranks(specs, grace)
        return run_with_starters(specs, allocation.hosts, starters, grace, step.logs / ".ranks")


def _will_continue(outcome: Outcome, allocation: Allocation, max_restarts: int) -> tuple[bool, str]:
    """Whether the step goes on in a restart, and what to say about it."""
    # A rank that has not come to its signal handler yet dies of USR1, and has nothing to save.
    lost = bool(outcome.lost_nodes) and allocation.scheduler == "pbs"
    saved = lost or outcome.exit_code in (TO_BE_CONTINUED, 128 + signal.SIGUSR1)
    what = str(outcome) if lost else "saved"
    if allocation.scheduler == "none":
        return saved, "stopped after saving; the same command goes on from there" if saved else ""
    if allocation.scheduler == "slurm" and is_requeued(allocation):
        return True, f"Slurm has put job {allocation.job_id} back into its queue; it goes on from what was saved"
    if not saved or outcome.stopped_by not in (None, signal.SIGUSR1):  # a TERM is the end: of qdel, say
        return False, ""
    if allocation.restarts >= max_restarts:
        but = f"restarted {allocation.restarts} times already; raise --max-restarts {max_restarts}"
        return False, but if lost else f"saved, but {but}"
    if allocation.scheduler == "pbs":  # the job script submits the next job when it sees the exit code
        return True, f"{what}; to be continued by the next job, restart {allocation.restarts + 1} of {max_restarts}"
    early = early_warning(allocation, time.time())
    if early is not None:
        log_line(early)
    refused = requeue(allocation)
    if refused is not None:
        return False, f"saved, but the job cannot be requeued ({refused}); submit it again to go on"
    return True, f"saved; job {allocation.job_id} is requeued for restart {allocation.restarts + 1} of {max_restarts}"


def restart_decision(step: StepFolder, allocation: Allocation, max_restarts: int) -> int | None:
    """Deal with a result that an earlier start of this same job has left; an exit code where that settles it.

    A completed one is kept, and there is nothing to do. A failed one, and one that says the step was skipped, is
    removed. A job that was restarted more than ``max_restarts`` times, a node that kills it say, is given up.
    """
    try:
        earlier: Result | None = step.read_result()
    except ResultError:
        earlier = None
    own = allocation.restarts > 0 and earlier is not None and earlier.job.get("id") == allocation.job_id
    if own and earlier is not None and earlier.status == "completed":
        log_line(f"{step.result_json} was completed before restart {allocation.restarts}; nothing is left to do")
        return 0
    if earlier is not None and (earlier.status == "skipped" or own):
        step.result_json.unlink(missing_ok=True)
    if allocation.restarts > max_restarts:
        error = f"given up after {max_restarts} restarts (--max-restarts {max_restarts})"
        record_failure(step, error, utc_now(), 0.0, step.rank_log(0), allocation)
        log_line(error)
        return 1
    return None


def record_failure(
    step: StepFolder, error: str, started_at: str, elapsed_s: float, log: Path, allocation: Allocation
) -> None:
    """Write ``result.json`` with status "failed" for ranks that could not."""
    environ = {**os.environ, **allocation.environment}
    try:
        other = other_owner(step, environ)
    except (OSError, ConfigError) as problem:  # the storage gives nothing, and would take nothing
        log_line(f"{step.result_json}: not written ({problem})")
        return
    if other is not None:  # a later life of this job, say, while this one was cut off from the network
        log_line(f"{step.path}: is held by {other}; nothing is written there")
        return
    result = Result(
        task=step.task,
        name=step.name,
        status="failed",
        started_at=started_at,
        ended_at=utc_now(),
        elapsed_s=round(elapsed_s, 3),
        error=error,
        log=str(log),
        job=job_of(environ),
        versions={"python": platform.python_version(), "segdist": __version__},
    )
    try:
        step.write_result(result)
    except OSError as problem:  # the disk is full, say; how the ranks ended matters more
        log_line(f"{explain(problem)}: result.json cannot be written")


def rotate_logs(step: StepFolder) -> None:
    """Move each ``rank<k>.log`` of an earlier launch to ``rank<k>.log.1``, also of ranks no longer there.

    Raises:
        ConfigError: where the folder cannot be made or written.
    """
    try:
        step.logs.mkdir(parents=True, exist_ok=True)
        for name in list_names(step.logs):
            if fnmatch.fnmatchcase(name, "rank*.log"):
                replace_file(step.logs / name, step.logs / f"{name}.1")
    except OSError as error:
        raise ConfigError(
            f"{step.logs}: cannot be made or written ({error.strerror}); give a --run folder you may write to"
        ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells one version of a file that is replaced as a whole from the next; needs no clock to be right."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
