"""Who holds the lease of a step, and whether that process is alive.

No clocks are compared: on the owner's own machine its process is looked for, from elsewhere its heartbeat is
watched.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segdist.config import ConfigError
from segdist.run.files import read_text
from segdist.run.folder import StepFolder
from segdist.run.result import ResultError
from segdist.system.procfs import boot_id, process_start

WATCH_S = 15.0
"""Seconds for which the heartbeat of an owner on another machine is watched before it counts as dead."""
UNFINISHED_S = 2.0
"""Seconds that the owner has to write into a holder file that it has made."""


@dataclass(frozen=True)
class LeaseOwner:
    """The process that holds the lease of a step, and its job: what ``holder.json`` says.

    ``cluster`` and ``job`` are empty for a run by hand. ``machine`` is the kernel's boot id and the pid namespace:
    where both are one's own, ``pid`` can be looked for; ``started`` is its start in clock ticks since boot.
    """

    cluster: str
    job: str
    restart: int
    host: str
    machine: str
    pid: int
    started: int
    token: str

    def is_same_job(self, other: LeaseOwner) -> bool:
        """Whether both are lives of one job; a run by hand is nobody's other life."""
        return bool(self.job) and (self.cluster, self.job) == (other.cluster, other.job)

    def __str__(self) -> str:
        who = f"job {self.job} of {self.cluster or 'an unnamed cluster'}" if self.job else "a run by hand"
        return f"{who} (restart {self.restart}) on {self.host}, pid {self.pid}"


def restarts(environ: Mapping[str, str], name: str = "SEGDIST_RESTART") -> int:
    """How often this job was restarted, by the variable of that name; 0 where it is not set or empty.

    Raises:
        ConfigError: for a value that is no whole number.
    """
    text = environ.get(name) or "0"
    if not text.isdecimal():
        raise ConfigError(f"{name}={text!r}: must be a whole number, 0 or more; unset it")
    return int(text)


def identity(environ: Mapping[str, str]) -> LeaseOwner:
    """This process and the job it belongs to, with a fresh token."""
    return LeaseOwner(
        cluster=environ.get("SEGDIST_JOB_CLUSTER", ""),
        job=environ.get("SEGDIST_JOB_ID", ""),
        restart=restarts(environ),
        host=socket.gethostname(),
        machine=machine_id(),
        pid=os.getpid(),
        started=process_start(os.getpid()) or 0,
        token=secrets.token_hex(16),
    )


def owner_path(step: StepFolder) -> Path:
    """Where the lease of a step is written."""
    return step.path / "holder.json"


def heartbeat_path(step: StepFolder) -> Path:
    """Where its owner writes a number that grows."""
    return step.path / "holder.beat"


def read_owner(step: StepFolder) -> LeaseOwner | None:
    """Who has the lease of the step, dead or alive; None where nobody has.

    A file that is empty, as it is for a moment where a file system has no hard links, is looked at again for a while;
    one that stays so is nobody's (:func:`is_unfinished`).

    Raises:
        ConfigError: for a file that is no lease.
        OSError: naming the file, where it cannot be read.
    """
    path = owner_path(step)
    end = time.monotonic() + UNFINISHED_S
    try:
        while not (text := read_text(path)).strip():
            if time.monotonic() > end:
                return None
            time.sleep(UNFINISHED_S / 20)  # nobody tells of a change on a network file system
        return LeaseOwner(**json.loads(text))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: does not say who works on the step ({error}); remove it if nobody does") from error


def is_unfinished(step: StepFolder) -> bool:
    """Whether there is a holder file in which nothing stands: who made it has ended in that moment."""
    try:
        return not read_text(owner_path(step)).strip()
    except FileNotFoundError:
        return False


def superseded(step: StepFolder, environ: Mapping[str, str]) -> LeaseOwner | None:
    """The later life of this very job that has the lease, or ended it; None where there is none."""
    own = identity(environ)
    return next((other for other in (read_owner(step), last_writer(step)) if other and is_later(other, own)), None)


def other_owner(step: StepFolder, environ: Mapping[str, str]) -> LeaseOwner | None:
    """The owner for whose sake this job leaves the step's files alone: a later life of it, or another that is alive.

    One that was killed has left its lease, and nobody who asks after the step would hear of this job's end. A run by
    hand has no id to compare: there an owner counts that is alive.
    """
    later = superseded(step, environ)
    if later is not None:
        return later
    own, owner = identity(environ), read_owner(step)
    if owner is None or owner.is_same_job(own):
        return None
    return owner if is_alive(step, owner) else None


def is_alive(step: StepFolder, owner: LeaseOwner, watch_s: float = WATCH_S) -> bool:
    """Whether an owner is at work: by its process on its own machine, else by its heartbeat, watched for a while."""
    if is_on_this_machine(owner):
        return process_start(owner.pid) == owner.started
    first = read_heartbeat(step)
    end = time.monotonic() + watch_s
    while time.monotonic() < end:
        time.sleep(min(0.5, watch_s / 10))  # nobody tells of a change on a network file system
        now = read_heartbeat(step)
        if now != first and now.startswith(owner.token):
            return True
    return False


def machine_id() -> str:
    """The kernel's boot id and the pid namespace: where both are the same, process ids mean the same."""
    return f"{boot_id()} {Path('/proc/self/ns/pid').readlink()}"


def is_on_this_machine(owner: LeaseOwner) -> bool:
    """Whether the owner's process can be looked for from here."""
    return (owner.host, owner.machine) == (socket.gethostname(), machine_id())


def is_later(other: LeaseOwner, own: LeaseOwner) -> bool:
    """Whether the other one is a later life of one's own job."""
    return other.is_same_job(own) and other.restart > own.restart


def last_writer(step: StepFolder) -> LeaseOwner | None:
    """The job that wrote ``result.json``, as far as that says; None without a readable one."""
    try:
        result = step.read_result()
    except ResultError:
        return None
    restart = str(result.job.get("restart", "0"))
    hosts = result.machine.get("hosts") or ["an unknown host"]
    return LeaseOwner(
        cluster=str(result.job.get("cluster", "")),
        job=str(result.job.get("id", "")),
        restart=int(restart) if restart.isdecimal() else 0,
        host=str(hosts[0]),
        machine="",
        pid=0,
        started=0,
        token="",
    )


def read_heartbeat(step: StepFolder) -> str:
    """What the owner wrote last: its token and a number; empty where there is nothing."""
    try:
        return read_text(heartbeat_path(step))
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
