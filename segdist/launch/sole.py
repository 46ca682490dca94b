"""One launch at a time for a step, and for a pipeline: who comes second is refused before it touches a file.

A rank acquires the step's lease once torch is loaded, seconds after its launcher has moved the earlier logs out of the
way: two elements of an array job on one run folder would meet in between. So a launcher has a lease of its own, of
the folder that it writes to itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from segdist.config import ConfigError
from segdist.launch.console import log_line
from segdist.run.folder import StepFolder
from segdist.run.lease import LeaseHeld, LeaseLost, acquire, require_free


@contextlib.contextmanager
def sole_launch(folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Hold the lease of a folder that a launcher writes to, made where it is not there.

    Raises:
        LeaseHeld: where another launcher, or a later life of this job, has it.
        ConfigError: where the folder cannot be written.
    """
    try:
        lease = acquire(_leased(folder), environ, log=log_line)
    except LeaseLost as lost:
        raise LeaseHeld(str(lost)) from lost
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made or written ({error.strerror}); give a --run folder you may write to"
        ) from error
    try:
        yield
    finally:
        try:
            lease.release()
        except OSError as error:  # the next launch finds that this process is gone
            log_line(f"warning: {folder}: not released ({error})")


def require_idle(step: StepFolder, environ: Mapping[str, str]) -> None:
    """Refuse a step that the ranks or the launcher of another job are at work on.

    Raises:
        LeaseHeld: naming that job.
    """
    require_free(step, environ, log=log_line)
    require_free(_leased(step.logs), environ, log=log_line)


def _leased(folder: Path) -> StepFolder:
    return StepFolder(folder, "launch", "launch")
