"""How a step starts: afresh, from its newest checkpoint, or not at all because this job has ended it already.

Only the standard library is imported here: who submits a job asks too, and the launcher before it starts a rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from segdist.config import ConfigError, TaskConfig, TrainConfig
from segdist.fence import restarts
from segdist.results import Result, ResultError, StepFolder, job_of

Start = Literal["fresh", "resume", "done"]


def choose_start(step: StepFolder, config: TaskConfig, environ: Mapping[str, str]) -> Start:
    """Decide from what the step's folder holds, what was asked for, and whether this is a restarted job.

    A restarted job goes on, whatever ``overwrite`` says, unless the result there is another job's: then its earlier
    life ended before it came to this step. A training that failed goes on from its checkpoints, as one that
    was killed does. A result that says the step was skipped is in nobody's way.

    Returns:
        "fresh": remove what is there; "resume": go on from the newest good checkpoint; "done": exit with 0.

    Raises:
        ConfigError: for a result that would be lost.
    """
    result = _result(step)
    can_resume = isinstance(config, TrainConfig) and config.training.resume == "auto" and has_checkpoints(step)
    if restarts(environ) > 0 and (result is None or _is_own(result, environ)):
        if result is not None and result.status == "completed":
            return "done"
        return "resume" if has_checkpoints(step) and isinstance(config, TrainConfig) else "fresh"
    if config.overwrite:
        return "fresh"
    if step.result_json.exists() and not (result is not None and result.status == "skipped"):
        if result is not None and result.status == "failed" and can_resume:
            return "resume"
        raise ConfigError(f"{step.result_json}: exists; give another --run, or --overwrite to replace it")
    return "resume" if can_resume else "fresh"


def has_checkpoints(step: StepFolder) -> bool:
    """Whether a training left any, good or damaged."""
    return any(step.checkpoints.glob("*.pt"))


def _result(step: StepFolder) -> Result | None:
    try:
        return step.read_result()
    except ResultError:  # missing, or of another version: refused by its being there
        return None


def _is_own(result: Result, environ: Mapping[str, str]) -> bool:
    own = job_of(environ)
    return "id" in own and (result.job.get("cluster"), result.job.get("id")) == (own.get("cluster"), own["id"])
