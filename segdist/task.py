"""The frame around every task: refuse to overwrite, run it, and leave a ``result.json`` whatever happens."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from segdist.cli import USAGE_ERROR
from segdist.config import ConfigError, EvaluateConfig, QuantizeConfig, TaskConfig, TrainConfig, to_plain
from segdist.results import Result, RunFolder, job_of, utc_now, write_json
from segdist.runtime.ranks import Ranks
from segdist.session import GoalMissed, Session, open_session
from segdist.versions import versions

GOAL_MISSED = 3
"""Exit code of a quantization that missed its accuracy goal."""


def run_task(task: str, config: TaskConfig, ranks: Ranks, cores: Sequence[int]) -> int:
    """Run ``task`` as this rank; returns its exit code.

    Rank 0 writes ``config.json`` before the work and ``result.json`` after it. An earlier result is refused, and left
    alone, unless the config says ``overwrite``.
    """
    step = RunFolder(config.run).step(task, getattr(config, "name", None))
    started_at, start = utc_now(), time.monotonic()
    if step.result_json.exists() and not config.overwrite:  # every rank looks, so that none waits for the others
        print(
            f"error: {step.result_json}: exists; give another --run, or --overwrite to replace it",
            file=sys.stderr,
        )
        return USAGE_ERROR
    session: Session | None = None
    metrics: dict[str, Any] = {}
    try:
        session = open_session(config, ranks, cores, step)
        if session.is_main:
            step.result_json.unlink(missing_ok=True)
            write_json(step.config_json, to_plain(config))
        metrics = _run(session, config)
        error, code = None, 0
    except GoalMissed as missed:
        metrics, error, code = missed.metrics, str(missed), GOAL_MISSED
    except ConfigError as refused:
        error, code = str(refused), USAGE_ERROR
    except Exception as failure:
        traceback.print_exc()
        error, code = f"{type(failure).__name__}: {failure}".strip(), 1
    if error is not None and code != 1:
        print(f"error: {error}", file=sys.stderr, flush=True)
    machine: dict[str, Any] = {}
    if session is not None and code in (0, GOAL_MISSED):
        machine = session.machine()
        session.collectives.close()
    if ranks.rank == 0:
        step.write_result(
            Result(
                task=task,
                name=step.name,
                status="failed" if error else "completed",
                started_at=started_at,
                ended_at=utc_now(),
                elapsed_s=round(time.monotonic() - start, 3),
                error=error,
                log=str(step.rank_log(0)),
                metrics=metrics,
                job=job_of(os.environ),
                machine=machine,
                decisions=session.decisions if session else {},
                versions=versions(),
            )
        )
    return code


def _run(session: Session, config: TaskConfig) -> dict[str, Any]:
    if isinstance(config, TrainConfig):
        from segdist.train import train

        return train(session, config)
    if isinstance(config, EvaluateConfig):
        from segdist.evaluate import evaluate

        return evaluate(session, config)
    assert isinstance(config, QuantizeConfig)
    from segdist.quantize import quantize

    return quantize(session, config)
