"""The frame around every task: refuse to overwrite, run it, and leave a ``result.json`` whatever happens."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from segdist.config import (
    ConfigError,
    EvaluateConfig,
    ExportConfig,
    QuantizeConfig,
    TaskConfig,
    TrainConfig,
    TuneConfig,
)
from segdist.machine.start import PLAIN, Start
from segdist.run.exit_codes import GOAL_MISSED, TO_BE_CONTINUED, USAGE_ERROR
from segdist.run.files import explain
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.lease import Lease, LeaseHeld, LeaseLost, acquire
from segdist.run.lease_owner import other_owner
from segdist.run.provenance import versions
from segdist.run.replaced import Replaced
from segdist.run.result import Result, job_of, utc_now
from segdist.run.start_mode import choose_start_mode, note_fresh_start
from segdist.runtime.rank_context import GoalMissed, Preempted, Rank0Failed, RankContext, open_rank_context
from segdist.runtime.rendezvous import RanksMissing
from segdist.runtime.watchdog import is_lost_connection
from segdist.system.ranks import Ranks
from segdist.system.signals import StopFlag
from segdist.training.loader import NoBatch, dead_worker

_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


def run_task(
    task: str,
    config: TaskConfig,
    ranks: Ranks,
    cores: Sequence[int],
    stop: StopFlag | None = None,
    start: Start = PLAIN,
) -> int:
    """Run ``task`` as this rank; returns its exit code.

    Rank 0 acquires the lease of the step, writes ``config.json`` before the work and ``result.json`` after it, and
    releases the lease. An earlier result is refused, and left alone, unless the config says ``overwrite``. A training
    that stopped on a signal has not ended: it writes no result.
    """
    step = RunFolder(config.run).step_of(config)
    started_at, began = utc_now(), time.monotonic()
    try:  # every rank looks, so that none waits for the others
        if choose_start_mode(step, config, os.environ) == "done":
            print(f"{step.result_json}: this job has completed the step already; nothing is left to do", flush=True)
            return 0
    except ConfigError as refused:
        print(f"error: {refused}", file=sys.stderr)
        return USAGE_ERROR
    context: RankContext | None = None
    try:
        context = open_rank_context(config, ranks, cores, step, stop, start)
        context.run_on_rank0(lambda: _begin(context, config))
        end = _End(0, metrics=_run(context, config))
        context.run_on_rank0(context.check_lease)
    except Exception as failure:
        end = _end_of(failure, context)
        if context is not None:
            context.finish_writing()  # a checkpoint on its way to the disk still belongs there
    _say_error(end)
    machine: dict[str, Any] = {}
    if context is not None and end.code in (0, GOAL_MISSED, TO_BE_CONTINUED):
        machine = context.machine()
        context.collectives.close()
    code = end.code
    if ranks.rank == 0 and end.may_write:
        result = Result(
            task=task,
            name=step.name,
            status="failed" if end.error else "completed",
            started_at=started_at,
            ended_at=utc_now(),
            elapsed_s=round(time.monotonic() - began, 3),
            error=end.error,
            log=str(step.rank_log(0)),
            metrics=end.metrics,
            job=job_of(os.environ),
            machine=machine,
            decisions=context.decisions if context else {},
            versions=versions(),
        )
        code = _write_result(step, result, context) or code
        _settle_replaced(config.run, step, result)
    if context is not None and context.lease is not None:
        _release(context.lease)
    return code


@dataclass(frozen=True)
class _End:
    """How the work ended. ``may_write``: whether the step's result is this process's to write."""

    code: int
    error: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    may_write: bool = True


def _say_error(end: _End) -> None:
    if end.error is not None and end.code != TO_BE_CONTINUED:
        print(f"error: {end.error}", file=sys.stderr, flush=True)


def _end_of(failure: Exception, context: RankContext | None) -> _End:
    """From an exception to an exit code; the other ranks are told of what they cannot know."""
    if context is None:
        return _end_of_this_rank(failure)
    if isinstance(failure, Preempted):
        context.log(f"{failure}; exit code {TO_BE_CONTINUED}: to be continued")
        return _End(TO_BE_CONTINUED, str(failure), may_write=False)
    watchdog = context.collectives.watchdog
    if watchdog is not None and is_lost_connection(failure):
        return _End(1, watchdog.explain(failure))
    end = _end_of_this_rank(failure, context)
    if watchdog is not None:
        if isinstance(failure, Rank0Failed):
            watchdog.acknowledge()
        elif not isinstance(failure, GoalMissed):
            watchdog.report_failure(end.error or "")
    return end


def _end_of_this_rank(failure: Exception, context: RankContext | None = None) -> _End:
    text = str(failure)
    if isinstance(failure, OSError) and (failure.filename is not None or failure.errno in _STORAGE):
        return _End(
            1,
            f"{explain(failure, str(context.step.path) if context else '')}; what was saved before is kept; "
            "mend the storage and give the same command again",
        )
    if isinstance(failure, GoalMissed):
        return _End(GOAL_MISSED, text, failure.metrics)
    if isinstance(failure, LeaseHeld):
        return _End(USAGE_ERROR, text, may_write=False)
    if isinstance(failure, ConfigError):
        return _End(USAGE_ERROR, text)
    if isinstance(failure, LeaseLost):
        return _End(1, text, may_write=False)
    if isinstance(failure, Rank0Failed | RanksMissing | FloatingPointError | NoBatch):
        return _End(1, text)
    if (dead := dead_worker(failure)) is not None:
        return _End(1, dead)
    traceback.print_exception(failure)
    return _End(1, f"{type(failure).__name__}: {failure}".strip())


def _begin(context: RankContext, config: TaskConfig) -> None:
    """What rank 0 does before the work: acquire the lease, decide again how it starts, and clear what must go."""
    step, run = context.step, RunFolder(config.run)
    context.lease = acquire(step, os.environ, log=context.log)
    start = choose_start_mode(step, config, os.environ)
    if start == "fresh":
        of_step = [step.result_json]
        if isinstance(config, TrainConfig):
            of_step += [step.checkpoints, run.model_pt, step.metrics_jsonl, step.steps_jsonl, step.choices_json]
        Replaced(run.path).take(of_step)
        note_fresh_start(step, os.environ)
    step.result_json.unlink(missing_ok=True)
    step.write_config(config)


def _write_result(step: StepFolder, result: Result, context: RankContext | None) -> int:
    """Write ``result.json`` where the step is this job's to write to; returns 1 where it could not be written."""
    try:
        if context is not None and context.lease is not None:
            context.lease.check()
        elif other := other_owner(step, os.environ):
            raise LeaseLost(f"{step.path}: is held by {other}; this result is not written")
        step.write_result(result)
    except (LeaseLost, OSError) as error:
        print(f"error: {step.result_json}: not written ({error})", file=sys.stderr, flush=True)
        return 1
    return 0


def _settle_replaced(run: str, step: StepFolder, result: Result) -> None:
    """Let go of what was replaced where there is something new; else say where it is."""
    replaced = Replaced(RunFolder(run).path)
    try:
        if result.status == "completed":
            replaced.discard(step.path)
        elif replaced.holds(step.path):
            print(f"note: what this step was to replace is kept in {replaced.path}", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"warning: {explain(error, str(replaced.path))}; it may be removed", file=sys.stderr, flush=True)


def _release(lease: Lease) -> None:
    """Release the lease; where the storage refuses, the next start finds that this process is gone."""
    try:
        lease.release()
    except OSError as error:
        print(f"warning: {lease.step.path}: not released ({error})", file=sys.stderr, flush=True)


def _run(context: RankContext, config: TaskConfig) -> dict[str, Any]:
    if isinstance(config, TrainConfig):
        from segdist.tasks.train import train

        return train(context, config)
    if isinstance(config, TuneConfig):
        from segdist.tasks.tune import tune

        return tune(context, config)
    if isinstance(config, EvaluateConfig):
        from segdist.tasks.evaluate import evaluate

        return evaluate(context, config)
    if isinstance(config, ExportConfig):
        from segdist.tasks.export import export

        return export(context, config)
    assert isinstance(config, QuantizeConfig)
    from segdist.tasks.quantize import quantize

    return quantize(context, config)
