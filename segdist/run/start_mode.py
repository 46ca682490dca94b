"""How a step starts: afresh, from its newest checkpoint, or not at all because this job has ended it already.

Only the standard library is imported here: who submits a job asks too, and the launcher before it starts a rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from segdist.config import ConfigError, TaskConfig, TrainConfig, to_plain
from segdist.run.files import json_text, list_names, read_text, write_json
from segdist.run.folder import StepFolder
from segdist.run.lease_owner import restarts
from segdist.run.result import Result, ResultError, UnreadableResult, job_of

StartMode = Literal["fresh", "resume", "done"]
MAY_CHANGE = ("checkpoint_minutes", "keep", "resume", "on_nan", "val_every", "compress", "bucket_mb", "compile")
"""Training options that may change from one start to the next."""


def choose_start_mode(step: StepFolder, config: TaskConfig, environ: Mapping[str, str]) -> StartMode:
    """Decide from what the step's folder holds, what was asked for, and whether this is a restarted job.

    A restarted job goes on, whatever ``overwrite`` says, unless what is there is another job's: then its earlier life
    ended before it came to this step. A training that failed goes on from its checkpoints, as one that was killed
    does. A result that says the step was skipped, or failed with nothing measured, is in nobody's way.

    Returns:
        "fresh": remove what is there; "resume": go on from the newest good checkpoint; "done": exit with 0.

    Raises:
        ConfigError: for a result that would be lost, or checkpoints that were made under other options.
        OSError: naming a file or folder that cannot be read.
    """
    result = _result(step)
    can_resume = isinstance(config, TrainConfig) and config.training.resume == "auto" and has_checkpoints(step)
    if restarts(environ) > 0 and (result is None or _is_own(result, environ)):
        if result is not None and result.status == "completed":
            return "done"
        if not (isinstance(config, TrainConfig) and has_checkpoints(step)):
            return "fresh"
        afresh = config.overwrite or config.training.resume == "never"
        return "fresh" if afresh and not _began_afresh(step, environ) else "resume"
    if config.overwrite:
        return "fresh"
    if step.result_json.exists() and (result is None or result.status == "completed" or result.metrics):
        more = f"; to train on, give another --run with --init weights {_model(step)}"
        more = more if isinstance(config, TrainConfig) and _model(step).is_file() else ""
        raise ConfigError(f"{step.result_json}: exists; give another --run, or --overwrite to replace it{more}")
    if not can_resume:
        return "fresh"
    assert isinstance(config, TrainConfig)
    _require_same_options(step, config)
    return "resume"


def _require_same_options(step: StepFolder, config: TrainConfig) -> None:
    """Refuse to go on from checkpoints under other options than those they were made with (``config.json``).

    What that file does not say is left to the checkpoint itself.

    Raises:
        ConfigError: naming each option that differs, and what can be done instead.
    """
    try:
        before = json.loads(read_text(step.config_json))
        now = json.loads(json_text(to_plain(config)))
        pairs = {
            name: (before[group].get(name, value), value)
            for group in ("net", "training")
            for name, value in now[group].items()
            if name not in MAY_CHANGE
        }
        pairs["labels"] = (before["dataset"]["labels"], now["dataset"]["labels"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return
    differing = [f"--{n.replace('_', '-')} was {a} and is {b}" for n, (a, b) in pairs.items() if a != b]
    if differing:
        raise ConfigError(
            f"{step.path}: its checkpoints are of another training: {'; '.join(differing)}; {advice(step)}"
        )


def advice(step: StepFolder) -> str:
    """What can be done with a training that may not go on under other options."""
    model = _model(step)
    weights = f", or another --run with --init weights {model} to train on from its weights" if model.is_file() else ""
    return f"give the same, or --overwrite to start afresh{weights or ', or another --run'}"


def _model(step: StepFolder) -> Path:
    return step.path / "model.pt"


def has_checkpoints(step: StepFolder) -> bool:
    """Whether a training left any, good or damaged; raises OSError where the folder cannot be read."""
    return any(name.endswith((".pt", ".pt.damaged")) for name in list_names(step.checkpoints) if name[0] != ".")


def note_fresh_start(step: StepFolder, environ: Mapping[str, str]) -> None:
    """Note, once what was there is removed, which job it was: what is there from now on is its own."""
    write_json(_begun_path(step), {"job": job_of(environ)})


def _began_afresh(step: StepFolder, environ: Mapping[str, str]) -> bool:
    """Whether an earlier life of this job has come so far."""
    try:
        job = json.loads(read_text(_begun_path(step)))["job"]
    except FileNotFoundError:
        return False
    return _is_own_job(job, environ)


def _begun_path(step: StepFolder) -> Path:
    return step.path / "begun.json"


def _result(step: StepFolder) -> Result | None:
    try:
        return step.read_result()
    except UnreadableResult as error:  # whether there is one is not known
        raise error.reason from None
    except ResultError:  # missing, or of another version: refused by its being there
        return None


def _is_own(result: Result, environ: Mapping[str, str]) -> bool:
    return _is_own_job(result.job, environ)


def _is_own_job(job: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    own = job_of(environ)
    return "id" in own and (job.get("cluster"), job.get("id")) == (own.get("cluster"), own["id"])
