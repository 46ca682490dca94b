"""Who works on a step: ``holder.json``, so that two jobs, or two lives of one job, never write to the same step.

The holder names a job and how often it was restarted; a random token tells one claim from the next. Who writes looks
first whether the token is still its own. A restarted job takes over from its earlier life, which may be running on, cut
off, on another node. Any other job is refused while the holder is alive. No clocks are compared: on the holder's own
machine its process is looked for, from elsewhere its heartbeat is watched.

There is no lock on shared storage that a dead node gives back, so one thing is left: what is written between a look at
the token and the end of the write. Each write is atomic, so even that leaves a whole file.

Only the standard library is imported here: the launcher uses it too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segdist.config import ConfigError
from segdist.results import ResultError, StepFolder, write_atomic
from segdist.runtime.kernel import boot_id, stat_of

BEAT_S = 5.0
"""Seconds between two heartbeats of a holder."""
WATCH_S = 15.0
"""Seconds for which the heartbeat of a holder on another machine is watched before it counts as dead."""


class Fenced(Exception):
    """The step belongs to a newer claim: nothing more may be written to it."""


class Held(ConfigError):
    """The step belongs to another job, which is alive."""


@dataclass(frozen=True)
class Holder:
    """A claim on a step.

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

    def is_same_job(self, other: Holder) -> bool:
        """Whether both are lives of one job; a run by hand is nobody's other life."""
        return bool(self.job) and (self.cluster, self.job) == (other.cluster, other.job)

    def __str__(self) -> str:
        who = f"job {self.job} of {self.cluster or 'an unnamed cluster'}" if self.job else "a run by hand"
        return f"{who} (restart {self.restart}) on {self.host}, pid {self.pid}"


def restarts(environ: Mapping[str, str]) -> int:
    """How often this job was restarted: ``SEGDIST_RESTART``, 0 where it is not set.

    Raises:
        ConfigError: for a value that is no whole number.
    """
    text = environ.get("SEGDIST_RESTART", "0")
    if not text.isdecimal():
        raise ConfigError(f"SEGDIST_RESTART={text!r}: must be a whole number, 0 or more; unset it")
    return int(text)


def identity(environ: Mapping[str, str]) -> Holder:
    """This process and the job it belongs to, with a fresh token."""
    return Holder(
        cluster=environ.get("SEGDIST_JOB_CLUSTER", ""),
        job=environ.get("SEGDIST_JOB_ID", ""),
        restart=restarts(environ),
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=process_start(os.getpid()) or 0,
        token=secrets.token_hex(16),
    )


def holder_path(step: StepFolder) -> Path:
    """Where the claim on a step is written."""
    return step.path / "holder.json"


def beat_path(step: StepFolder) -> Path:
    """Where its holder writes a number that grows."""
    return step.path / "holder.beat"


def read_holder(step: StepFolder) -> Holder | None:
    """Who holds the step, dead or alive; None where nobody does.

    Raises:
        ConfigError: for a file that is no claim.
    """
    path = holder_path(step)
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: does not say who works on the step ({error}); remove it if nobody does") from error


def superseded(step: StepFolder, environ: Mapping[str, str]) -> Holder | None:
    """The later life of this very job that has the step, or ended it; None where there is none."""
    own = identity(environ)
    return next((other for other in (read_holder(step), _who_ended(step)) if other and _is_later(other, own)), None)


def other_holder(step: StepFolder, environ: Mapping[str, str]) -> Holder | None:
    """The holder for whose sake this job must leave the step's files alone: a later life of it, or another's job.

    A run by hand has no id to compare: there a holder counts that is alive on this machine, or that is a job's.
    """
    later = superseded(step, environ)
    if later is not None:
        return later
    own, holder = identity(environ), read_holder(step)
    if holder is None or holder.is_same_job(own):
        return None
    if holder.job or own.job:
        return holder
    return holder if _is_here(holder) and process_start(holder.pid) == holder.started else None


def is_alive(step: StepFolder, holder: Holder, watch_s: float = WATCH_S) -> bool:
    """Whether a holder is at work: by its process on its own machine, else by its heartbeat, watched for a while."""
    if _is_here(holder):
        return process_start(holder.pid) == holder.started
    first = _read_beat(step)
    end = time.monotonic() + watch_s
    while time.monotonic() < end:
        time.sleep(min(0.5, watch_s / 10))  # nobody tells of a change on a network file system
        now = _read_beat(step)
        if now != first and now.startswith(holder.token):
            return True
    return False


def claim(
    step: StepFolder, environ: Mapping[str, str], watch_s: float = WATCH_S, log: Callable[[str], None] = print
) -> Fence:
    """Become the holder of a step.

    Raises:
        Fenced: where a later life of this job has the step.
        Held: where another job has it and is alive.
    """
    own = identity(environ)
    later = superseded(step, environ)
    if later is not None:
        raise Fenced(f"{step.path}: fenced, this is restart {own.restart} of a job that goes on as {later}")
    path, data = holder_path(step), (json.dumps(dataclasses.asdict(own), indent=2) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = read_holder(step)
    if holder is None:
        if not _create(path, data):  # somebody was faster by a moment
            raise Held(f"{path.parent}: has just been taken by {read_holder(step) or 'another job'}; wait for its end")
    else:
        _refuse_living(step, holder, own, watch_s, log)
        log(f"{step.path}: taken over from {holder}")
        write_atomic(path, data)
    fence = Fence(step, own)
    fence.check()
    fence.start()
    return fence


def require_free(
    step: StepFolder, environ: Mapping[str, str], watch_s: float = WATCH_S, log: Callable[[str], None] = print
) -> None:
    """For who prepares a job and claims nothing yet.

    Raises:
        Held: where another job has the step and is alive.
    """
    holder = read_holder(step)
    if holder is not None:
        _refuse_living(step, holder, identity(environ), watch_s, log)


def _refuse_living(step: StepFolder, holder: Holder, own: Holder, watch_s: float, log: Callable[[str], None]) -> None:
    if holder.is_same_job(own) and own.restart > holder.restart:
        return
    if not _is_here(holder):
        log(f"{step.path}: held by {holder}; watching its heartbeat for up to {watch_s:g} s")
    if is_alive(step, holder, watch_s):
        raise Held(f"{step.path}: {holder} is at work on it; wait for it, cancel it or give another --run")


class Fence:
    """A claim that was granted: :meth:`check` before each write, :meth:`release` at the end.

    A thread of its own beats; where it finds the claim gone it stops, and ``lost`` is set.
    """

    def __init__(self, step: StepFolder, own: Holder) -> None:
        self.step = step
        self.own = own
        self.lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def check(self) -> None:
        """Look whether the claim still stands.

        Raises:
            Fenced: naming the new holder.
            OSError: where the file cannot be read.
        """
        holder = read_holder(self.step)
        if self.lost.is_set() or holder is None or holder.token != self.own.token:
            now = "has lost its holder.json (removed, or the folder with it)"
            if holder is not None:
                own = holder.token == self.own.token
                now = "was away for a while" if own else f"is held by {holder} now"
            self.lost.set()
            raise Fenced(f"{self.step.path}: {now}; this was {self.own}, which writes nothing more there")

    def release(self) -> None:
        """Stop beating, and give the step back where it is still held."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        holder = read_holder(self.step)
        if holder is not None and holder.token == self.own.token:
            beat_path(self.step).unlink(missing_ok=True)
            holder_path(self.step).unlink()

    def _beat(self) -> None:
        count, well = 0, True
        path = beat_path(self.step)
        temporary = path.with_name(f".{path.name}.{self.own.token}")
        while not self._ended.is_set():
            try:
                self.check()
                temporary.write_text(f"{self.own.token} {count}\n", encoding="ascii")
                temporary.replace(path)
                well = True
            except Fenced:
                return
            except OSError as error:
                if well:
                    print(f"warning: {path}: cannot be written ({error}); others may think this job dead",
                          file=sys.stderr, flush=True)  # fmt: skip
                well = False
            count += 1
            self._ended.wait(BEAT_S)


def process_start(pid: int) -> int | None:
    """When a living process started, in ticks since boot (proc(5), field 22 of stat); None for none, or a zombie."""
    try:
        state, ticks = stat_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in ("Z", "X") else ticks


def _machine() -> str:
    return f"{boot_id()} {Path('/proc/self/ns/pid').readlink()}"


def _is_here(holder: Holder) -> bool:
    return (holder.host, holder.machine) == (socket.gethostname(), _machine())


def _is_later(other: Holder, own: Holder) -> bool:
    return other.is_same_job(own) and other.restart > own.restart


def _who_ended(step: StepFolder) -> Holder | None:
    """The job that wrote ``result.json``, as far as it says."""
    try:
        result = step.read_result()
    except ResultError:
        return None
    restart = str(result.job.get("restart", "0"))
    hosts = result.machine.get("hosts") or ["an unknown host"]
    return Holder(
        cluster=str(result.job.get("cluster", "")),
        job=str(result.job.get("id", "")),
        restart=int(restart) if restart.isdecimal() else 0,
        host=str(hosts[0]),
        machine="",
        pid=0,
        started=0,
        token="",
    )


def _read_beat(step: StepFolder) -> str:
    try:
        return beat_path(step).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return ""


def _create(path: Path, data: bytes) -> bool:
    """Write a file that must not be there yet; whole from its first moment, so by a link to a finished one."""
    finished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_atomic(finished, data)
        os.link(finished, path)
    except FileExistsError:
        return False
    finally:
        finished.unlink(missing_ok=True)
    return True
