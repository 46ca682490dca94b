"""A job of the local cluster on another machine, or in a container that is no more: its heartbeat is watched."""

from __future__ import annotations

import sys
import time

from jobs.record.heartbeat import heartbeat_path, read_heartbeat
from jobs.state.model import RunState
from segdist.run import lease_owner


def must_be_watched(state: RunState) -> bool:
    """Whether only a heartbeat can tell if the run is at work: its process cannot be looked for from here."""
    return state.alive is None and not state.ended and state.spec is not None and state.spec.cluster == "local"


def is_heard_of(state: RunState, watch_s: float | None = None) -> bool:
    """Whether a heartbeat of the job, or of a step's lease, changes within the time that a launcher watches one."""
    seconds = lease_owner.WATCH_S if watch_s is None else watch_s
    print(
        f"{state.folder.path}: its job is of another machine or container; watching its heartbeat for up to "
        f"{seconds:g} s",
        file=sys.stderr,
        flush=True,
    )
    paths = [heartbeat_path(state.job_folder)]
    paths += [lease_owner.heartbeat_path(step.folder) for step in state.own_steps]
    first = [read_heartbeat(path) for path in paths]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(0.5, seconds / 10))  # nobody tells of a change on a network file system
        if any(now not in ("", before) for now, before in zip([read_heartbeat(path) for path in paths], first)):
            return True
    return False
