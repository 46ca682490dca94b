"""The ``result.json`` of a step that could not write its own: failed, or skipped."""

from __future__ import annotations

import dataclasses

from jobs.record.job_folder import launcher_log, seconds_between
from segdist.run.folder import StepFolder
from segdist.run.result import Result, ResultError, Status, utc_now


def write_failure(folder: StepFolder, error: str, job: dict[str, str], started: str | None = None) -> Result:
    """Write that a step failed; what its own result said is kept."""
    return write_end(folder, "failed", error, job, started)


def write_skipped(folder: StepFolder, why: str, job: dict[str, str]) -> Result:
    """Write that a step was skipped."""
    return write_end(folder, "skipped", why, job, None)


def write_end(
    folder: StepFolder, status: Status, error: str | None, job: dict[str, str], started: str | None
) -> Result:
    """Write a step's ``result.json`` on its behalf; of one that is there, the rest is kept."""
    now = utc_now()
    try:
        result = folder.read_result()
    except ResultError:
        result = Result(folder.task, folder.name, "failed", started or now)
    log = launcher_log(folder)
    result = dataclasses.replace(
        result,
        status=status,
        error=error,
        ended_at=now,
        elapsed_s=seconds_between(result.started_at, now),
        log=result.log or (str(log) if log.exists() else None),
        job=job,
    )
    folder.write_result(result)
    return result
