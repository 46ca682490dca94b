"""A whole pipeline inside one allocation: train, evaluate, quantize, evaluate int8, report, one after the other."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence

from segdist.config import ConfigError, PipelineConfig, QuantizeConfig, TaskConfig, task_of, to_plain
from segdist.launch.allocation import Allocation
from segdist.launch.console import log_line
from segdist.launch.sole import require_idle
from segdist.launch.step import record_failure
from segdist.run.exit_codes import TO_BE_CONTINUED, USAGE_ERROR
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.lease import LeaseHeld
from segdist.run.result import Result, ResultError, job_of, utc_now
from segdist.run.start_mode import choose_start_mode

RunStep = Callable[[argparse.Namespace, TaskConfig, Sequence[str]], int]


def run_pipeline(options: argparse.Namespace, config: PipelineConfig, allocation: Allocation, run_step: RunStep) -> int:
    """Run the steps with ``run_step``; a failed one skips those after it, but for the report.

    What an earlier start has completed under the same config is not done again.

    Returns:
        the exit code of the step that failed, 75 where one is to be continued, else 0.

    Raises:
        ConfigError: for a result that would be lost, before anything is written; for a step that another job is at
            work on.
    """
    run = RunFolder(config.run)
    steps: list[TaskConfig] = [
        config.train(),
        config.evaluate("fp32"),
        config.quantize(),
        config.evaluate("int8", str(run.model_int8)),
    ]
    done = _completed(run, steps, {**os.environ, **allocation.environment})
    for step_config in steps[:done]:
        log_line(f"{run.step_of(step_config).result_json}: is completed already, under the same config")
    failure, exit_code = None, 0
    for step_config in steps[done:]:
        step = run.step_of(step_config)
        label = step.path.relative_to(run.path).as_posix().replace("/", " ")
        if failure is not None:
            _write_skipped(step, failure, allocation)
            log_line(f"{label}: skipped, because {failure}")
            continue
        log_line(f"{label} begins")
        code = _run(options, step_config, step, allocation, run_step)
        if code == TO_BE_CONTINUED:
            return TO_BE_CONTINUED
        if code != 0:
            exit_code, failure = code, f"{label} failed: {_error(step)}"
    from segdist.report.page import write_report

    log_line(f"report: {write_report([run.path], run.report_html)}")
    return exit_code


def _completed(run: RunFolder, steps: Sequence[TaskConfig], environ: Mapping[str, str]) -> int:
    """How many of the first steps are done; raises ConfigError where the result of a later one is in the way."""
    done = 0
    while done < len(steps) and _is_completed(run.step_of(steps[done]), steps[done]):
        done += 1
    for config in steps[done:]:
        choose_start_mode(run.step_of(config), config, environ)
    return done


def _is_completed(step: StepFolder, config: TaskConfig) -> bool:
    try:
        before = json.loads(step.config_json.read_text(encoding="utf-8"))
        completed = step.read_result().status == "completed"
    except (ResultError, OSError, ValueError):  # it has to be done, or is refused by what is there
        return False
    return completed and not config.overwrite and before == json.loads(json.dumps(to_plain(config)))


def _run(
    options: argparse.Namespace, config: TaskConfig, step: StepFolder, allocation: Allocation, run_step: RunStep
) -> int:
    if isinstance(config, QuantizeConfig):  # one process, wherever it runs
        options = argparse.Namespace(**{**vars(options), "nodes": 1, "ranks_per_node": 1})
    require_idle(step, {**os.environ, **allocation.environment})
    step.write_config(config)
    try:
        return run_step(options, config, [task_of(config), "--config", str(step.config_json)])
    except LeaseHeld:  # of another job: none of its files is this pipeline's to write
        raise
    except ConfigError as error:
        if not step.result_json.exists():
            record_failure(step, str(error), utc_now(), 0.0, step.rank_log(0), allocation)
        log_line(f"error: {error}")
        return USAGE_ERROR


def _write_skipped(step: StepFolder, why: str, allocation: Allocation) -> None:
    now = utc_now()
    job = job_of(allocation.environment)
    step.write_result(Result(step.task, step.name, "skipped", now, now, error=why, job=job))


def _error(step: StepFolder) -> str:
    try:
        return step.read_result().error or "see its log"
    except ResultError as error:
        return str(error)
