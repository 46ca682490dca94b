"""Processes of this host: which are alive, which belong to a job, and which end with their parent."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from jobs.record.run_json import Job, Submitter
from segdist.run.lease_owner import machine_id
from segdist.system import procfs

TOKEN = "SEGDIST_JOB_TOKEN"
"""Environment variable that marks every process of a job."""


def this_process() -> Submitter:
    """This process, as others can look for it."""
    return Submitter(socket.gethostname(), os.getpid(), stat_of(os.getpid())[1])


def stat_of(pid: int) -> tuple[str, str]:
    """State letter and start (boot id, pid namespace, clock ticks) of a process; OSError where there is none."""
    state, ticks = procfs.stat_of(pid)
    return state, f"{machine_id()}/{ticks}"


def process_started(pid: int) -> str | None:
    """When the process with that pid started (see :func:`stat_of`), or None where it has ended."""
    try:
        ticks = procfs.process_start(pid)
    except (OSError, ValueError):  # another user's, where /proc hides those
        return None
    return None if ticks is None else f"{machine_id()}/{ticks}"


def is_alive(process: Job | Submitter) -> bool | None:
    """Whether a job's controlling process, or one that submits, is alive; None where another host, or another
    container of that name, has to be asked."""
    if process.host != socket.gethostname():
        return None
    machine, _, ticks = process.pid_started.rpartition("/")
    boot, _, namespace = machine.partition(" ")
    if boot == procfs.boot_id() and namespace and machine != machine_id():
        return None  # another container of that name: its pids are not to be seen from here
    started = process_started(process.pid)
    if namespace or started is None:
        return started == process.pid_started
    return started.rpartition("/")[2] == ticks and boot == procfs.boot_id()  # as version 0.1 wrote it


def job_processes(token: str) -> list[int]:
    """The living processes on this host, but for this one, that have a job's token in their environment."""
    mark = f"{TOKEN}={token}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:  # another user's process, or one that has just ended
            continue
        if mark in environ.split(b"\0") and process_started(int(entry.name)) is not None:
            found.append(int(entry.name))
    return sorted(found)


def die_with_parent(parent: int) -> None:
    """Let the kernel send this process TERM when ``parent``, which started it, ends in whatever way."""
    procfs.end_with_parent(parent, signal.SIGTERM)()
