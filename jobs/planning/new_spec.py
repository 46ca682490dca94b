"""The record of a run that is about to be submitted."""

from __future__ import annotations

import dataclasses
import platform
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import segdist
from jobs.planning.resources import Profile, Resources
from jobs.planning.submissions import Submission
from jobs.record.processes import this_process
from jobs.record.run_json import JobSpec, PlannedRun, read_spec, to_plain
from segdist.config import ConfigError
from segdist.run.folder import RunFolder
from segdist.run.result import ResultError, utc_now


def new_spec(
    task: str, argv: Sequence[str], submission: Submission, planned: PlannedRun, profile: Profile, cluster: str
) -> JobSpec:
    """The record of a run, whole but for its jobs: this process is about to submit them."""
    from segdist.run.provenance import checkout_commit

    return JobSpec(
        run=str(planned.run.path),
        task=task,
        created_at=utc_now(),
        command=(sys.executable, "-m", "jobs.submit", *argv),
        cwd=planned.cwd,
        resources=dataclasses.asdict(submission.resources),
        profile=dataclasses.asdict(profile),
        steps=planned.steps,
        versions={
            "segdist": segdist.__version__,
            "commit": checkout_commit() or "unknown",
            "python": platform.python_version(),
        },
        submitit_folder=planned.submitit_folder,
        cluster=cluster,
        state="submitting",
        submitter=this_process(),
        token=uuid.uuid4().hex if cluster == "local" else "",
        earlier=_earlier(planned.run),
    )


def with_slot(spec: JobSpec, planned: PlannedRun, index: int, resources: Resources) -> JobSpec:
    """The record of a run of a sweep, with the slot that it shares with others of this machine."""
    slot = planned.run.path.parent.resolve() / f".slot{index % (resources.max_parallel or 1)}"
    return dataclasses.replace(spec, slot=str(slot))


def _earlier(run: RunFolder) -> tuple[dict[str, Any], ...]:
    if not run.run_json.exists():
        return ()
    try:
        plain = to_plain(read_spec(run.run_json))
    except ResultError as error:
        raise ConfigError(str(error)) from error
    return (*plain.pop("earlier"), plain)
