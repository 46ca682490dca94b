"""A job's own files in the run folder: its launcher's log, and the request to cancel it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from segdist.run.folder import StepFolder

CANCEL = "cancel.json"
"""In a job's own folder: who asked it to stop, and when."""
REFUSED = "SEGDIST_NOT_CONTINUED"
"""Environment variable by which a job's script tells the runner, in the scheduler's words, why no job continues it."""


def launcher_log(folder: StepFolder) -> Path:
    """Where the runner puts the output of a step's command."""
    return folder.logs / "launch.log"


def seconds_between(start: str, end: str) -> float:
    """Seconds from one time of :func:`segdist.run.result.utc_now` to another."""
    form = "%Y-%m-%dT%H:%M:%SZ"
    return (datetime.datetime.strptime(end, form) - datetime.datetime.strptime(start, form)).total_seconds()


def cancelled_text(job_folder: Path) -> str | None:
    """``cancelled by USER at TIME`` where jobs.cancel has asked the job to stop."""
    try:
        values = json.loads((job_folder / CANCEL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return f"cancelled by {values['by']} at {values['at']}"
