"""A step that no job is known for: whether somebody works on it by hand."""

from __future__ import annotations

from segdist.config import ConfigError
from segdist.run.folder import StepFolder
from segdist.run.lease import HEARTBEAT_S
from segdist.run.lease_owner import LeaseOwner, is_alive, read_owner

_WATCH_S = HEARTBEAT_S + 1.0


def holder_at_work(folder: StepFolder) -> LeaseOwner | None:
    """Who holds the lease of the step and is alive; a holder on another machine is watched for a heartbeat."""
    try:
        owner = read_owner(folder)
    except ConfigError:  # is no lease, so that nobody can be found by it
        return None
    return owner if owner is not None and is_alive(folder, owner, _WATCH_S) else None
