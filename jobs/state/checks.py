"""What is refused before anything is written: a missing model, a run at work, results in the way."""

from __future__ import annotations

import shlex
from pathlib import Path

from jobs.planning.steps import Steps
from jobs.planning.submissions import EvaluateSubmission, QuantizeSubmission, Submission
from jobs.record.run_json import JobSpec
from jobs.state.elsewhere import is_heard_of, must_be_watched
from jobs.state.model import RunState
from jobs.state.read import read_run
from segdist.config import ConfigError, require
from segdist.run.folder import RunFolder
from segdist.run.lease import require_free
from segdist.run.replaced import Replaced
from segdist.run.start_mode import choose_start_mode


def check_model(task: str, submission: Submission, run: RunFolder) -> None:
    """Evaluation and quantization need a model: the run's own, or ``--weights``; raises ConfigError."""
    if not isinstance(submission, EvaluateSubmission | QuantizeSubmission):
        return
    if submission.weights is not None:
        require(
            Path(submission.weights).is_file(),
            f"--weights {submission.weights}: is no file; give the path of a model.pt",
        )
        return
    require(
        submission.run != "",
        f'--run "": {task} needs a run with a trained model; give --run RUN, or --weights FILE',
    )
    require(
        run.path.is_dir(),
        f"--run {run.path}: there is no such run folder; give the run of a training, or --weights FILE",
    )
    require(
        run.model_pt.is_file(),
        f"--run {run.path}: has no {run.model_pt.relative_to(run.path)}; train there first, or give --weights FILE",
    )


def check_free(run: RunFolder, steps: Steps, may_restore: bool = False) -> list[str]:
    """Refuse, with ConfigError, a run that another job works on, and results that would be lost.

    Args:
        run: its folder.
        steps: those that are to run.
        may_restore: whether results that a killed submission had set aside may take their places again.

    Returns:
        the steps that go on from what an earlier job has saved.
    """
    require(not run.path.exists() or run.path.is_dir(), f"--run {run.path}: is no folder; give another name")
    if run.run_json.exists():
        state = read_run(run.path)
        if state.spec is None:
            raise ConfigError(f"--run {run.path}: {state.note}; or give another --run")
        who, host = _who_works(state, state.spec)
        cancel = f"python -m jobs.cancel {shlex.quote(str(run.path))}"
        require(
            not state.alive,
            f"--run {run.path}: {who} is at work in it; wait for it, end it with {cancel}, or give another --run",
        )
        if must_be_watched(state):
            again = f"submit from {host}, or end it there"
            require(
                not is_heard_of(state),
                f"--run {run.path}: {who} is at work in it, its heartbeat goes on; {again}, or give another --run",
            )
        else:
            again = f"submit from {host}" if host else "try again when its scheduler answers"
            require(state.ended, f"--run {run.path}: {who} may be at work in it; {again}, or give another --run")
        unsubmitted = state.spec.state != "submitted" and not state.spec.jobs
        if may_restore and unsubmitted and Replaced(run.path).restore():
            print(f"note: {run.path}: results that a submission had set aside are back; it was never made")
    going_on = []
    for step, config in steps:
        if config is not None:
            if choose_start_mode(step.folder(run), config, {}) == "resume":
                going_on.append(step.step)
            require_free(step.folder(run), {})
    return going_on


def _who_works(state: RunState, spec: JobSpec) -> tuple[str, str]:
    """The job that is at work on a run, or the process that submits it, and the host to ask ("" for a scheduler)."""
    alive = [job for job, entry in state.entries if entry.alive]
    if spec.state == "submitting" and spec.submitter is not None and not alive:
        return f"a submission (pid {spec.submitter.pid} on {spec.submitter.host})", spec.submitter.host
    job = (alive or list(spec.jobs))[0]
    local = job.cluster == "local"
    return f"job {job.id} ({f'pid {job.pid} on {job.host}' if local else job.cluster})", job.host if local else ""
