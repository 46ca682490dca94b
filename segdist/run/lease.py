"""The lease of a step, ``holder.json``: two jobs, or two lives of one job, never write to the same step.

It names its owner, a job and how often that was restarted; a random token tells one lease from the next. Who writes
looks first whether the token is still its own. A restarted job takes the lease over from its earlier life, which may be
running on, cut off, on another node. Any other job is refused while the owner is alive. No clocks are compared: on the
owner's own machine its process is looked for, from elsewhere its heartbeat is watched (Gray and Cheriton, "Leases",
SOSP 1989, bound a lease by time; here the heartbeat takes that place).

There is no lock on shared storage that a dead node gives back, so one thing is left: what is written between a look at
the token and the end of the write. Each write is atomic, so even that leaves a whole file.

Only the standard library is imported here: the launcher uses it too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from segdist.config import ConfigError
from segdist.run.file_system import make_link, replace_file, sync_folder
from segdist.run.files import naming, write_atomic
from segdist.run.folder import StepFolder
from segdist.run.lease_owner import (
    WATCH_S,
    LeaseOwner,
    heartbeat_path,
    identity,
    is_alive,
    is_on_this_machine,
    is_unfinished,
    owner_path,
    read_owner,
    superseded,
)

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats of an owner."""


class LeaseLost(Exception):
    """The step has a newer lease: nothing more may be written to it."""


class LeaseHeld(ConfigError):
    """Another job has the lease of the step, and is alive."""


def acquire(
    step: StepFolder, environ: Mapping[str, str], watch_s: float = WATCH_S, log: Callable[[str], None] = print
) -> Lease:
    """Become the owner of a step's lease.

    Args:
        watch_s: seconds for which the heartbeat of an owner on another machine is watched.
        log: takes a line for the user.

    Raises:
        LeaseLost: where a later life of this job has it.
        LeaseHeld: where another job has it and is alive.
    """
    own = identity(environ)
    later = superseded(step, environ)
    if later is not None:
        raise LeaseLost(
            f"{step.path}: the lease is lost, this is restart {own.restart} of a job that goes on as {later}"
        )
    path, data = owner_path(step), (json.dumps(dataclasses.asdict(own), indent=2) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = read_owner(step)
    if owner is None and not _create(path, data):  # somebody was faster by a moment, or ended in that moment
        owner = read_owner(step)
        if owner is not None or not is_unfinished(step):
            raise LeaseHeld(f"{path.parent}: has just been taken by {owner or 'another job'}; wait for its end")
        log(f"{step.path}: taken over from a start that ended before it had written {path.name}")
        write_atomic(path, data)
    elif owner is not None:
        _refuse_living(step, owner, own, watch_s, log)
        now = read_owner(step)
        if now is not None and now.token != owner.token:  # somebody else has watched it too, and was faster
            raise LeaseHeld(f"{step.path}: has just been taken by {now}; wait for its end")
        log(f"{step.path}: taken over from {owner}")
        write_atomic(path, data)
    lease = Lease(step, own)
    lease.check()
    lease.start()
    return lease


def require_free(
    step: StepFolder, environ: Mapping[str, str], watch_s: float = WATCH_S, log: Callable[[str], None] = print
) -> None:
    """Refuse a step that another job works on; for who prepares a job and acquires no lease yet.

    Raises:
        LeaseHeld: where another job has the lease and is alive.
    """
    owner = read_owner(step)
    if owner is not None:
        _refuse_living(step, owner, identity(environ), watch_s, log)


def _refuse_living(
    step: StepFolder, owner: LeaseOwner, own: LeaseOwner, watch_s: float, log: Callable[[str], None]
) -> None:
    if owner.is_same_job(own) and own.restart > owner.restart:
        return
    if not is_on_this_machine(owner):
        log(f"{step.path}: held by {owner}; watching its heartbeat for up to {watch_s:g} s")
    if is_alive(step, owner, watch_s):
        raise LeaseHeld(f"{step.path}: {owner} is at work on it; wait for it, cancel it or give another --run")


class Lease:
    """A lease that was acquired: :meth:`check` before each write, :meth:`release` at the end.

    A thread of its own writes the heartbeat; where it finds the lease gone it stops, and ``lost`` is set.
    """

    def __init__(self, step: StepFolder, own: LeaseOwner) -> None:
        self.step = step
        self.own = own
        self.lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._heartbeat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin the heartbeat."""
        self._thread.start()

    def check(self) -> None:
        """Look whether the lease still stands.

        Raises:
            LeaseLost: naming the new owner.
            OSError: where the file cannot be read.
        """
        owner = read_owner(self.step)
        if self.lost.is_set() or owner is None or owner.token != self.own.token:
            now = "has lost its holder.json (removed, or the folder with it)"
            if owner is not None:
                own = owner.token == self.own.token
                now = "was away for a while" if own else f"is held by {owner} now"
            self.lost.set()
            raise LeaseLost(f"{self.step.path}: {now}; this was {self.own}, which writes nothing more there")

    def release(self) -> None:
        """End the heartbeat, and give the lease back where it is still this one."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        owner = read_owner(self.step)
        if owner is not None and owner.token == self.own.token:
            heartbeat_path(self.step).unlink(missing_ok=True)
            owner_path(self.step).unlink()

    def _heartbeat(self) -> None:
        """Write the heartbeat until the lease ends or is lost.

        Where the holder file cannot be read for a while, others would take a job without a heartbeat for dead.
        """
        count, amiss = 0, ""
        path = heartbeat_path(self.step)
        temporary = path.with_name(f".{path.name}.{self.own.token}")
        while not self._ended.is_set():
            before, amiss = amiss, ""
            try:
                self.check()
            except LeaseLost:
                return
            except (OSError, ConfigError) as error:
                amiss = f"{error}; the heartbeat goes on"
            try:
                with naming(path):
                    temporary.write_text(f"{self.own.token} {count}\n", encoding="ascii")
                    replace_file(temporary, path)
            except OSError as error:
                amiss = f"the heartbeat cannot be written ({error}); others may think this job dead"
            if amiss and not before:
                print(f"warning: {amiss}", file=sys.stderr, flush=True)
            elif before and not amiss:
                print(f"{path}: is written and {owner_path(self.step).name} read again", file=sys.stderr, flush=True)
            count += 1
            self._ended.wait(HEARTBEAT_S)


def _create(path: Path, data: bytes) -> bool:
    """Write a file that must not be there yet; whole from its first moment, so by a link to a finished one.

    Without hard links it is made at its own place, and is empty for a moment (:func:`read_owner` waits for that).
    """
    finished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_atomic(finished, data)
        if not make_link(finished, path):
            _create_in_place(path, data)
    except FileExistsError:
        return False
    finally:
        finished.unlink(missing_ok=True)
    return True


def _create_in_place(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with naming(path):
            os.write(descriptor, data)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    sync_folder(path.parent)
