"""A PBS job seen from inside: its id, its nodes, and the time at which it must have saved. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from segdist.config import ConfigError, require
from segdist.launch.allocation import Allocation
from segdist.launch.console import log_line
from segdist.run.lease_owner import restarts
from segdist.system.procfs import ReadText, read_text

JOB_END = "SEGDIST_JOB_END"
"""When the scheduler will end this job, in seconds since 1970; the job script sets it."""
SAVE_MARGIN = "SEGDIST_SAVE_MARGIN"
"""Seconds before that time at which training is asked to save and to stop."""
_DEFAULT_MARGIN_S = 300.0


def short_id(text: str) -> str:
    """``2.pbshead`` is ``"2"``; the array element ``47[3].pbshead`` (in old Torque ``47-3.head``) is ``"47_3"``.

    Raises:
        ConfigError: for a text that is no job id.
    """
    match = re.fullmatch(r"(\d+)(?:\[(\d*)\]|-(\d+))?(?:\..*)?", text.strip())
    require(match is not None, f"job id {text!r}: must be a number and a server, as 12.pbs or 12[3].pbs")
    assert match is not None
    index = match[2] or match[3]
    return f"{match[1]}_{index}" if index else match[1]


def pbs_allocation(environ: Mapping[str, str], read: ReadText = read_text) -> Allocation | None:
    """The allocation of a PBS or Torque job, or None outside one.

    The node file has a line for every rank that the scheduler was asked for (``mpiprocs``, ``ppn``); its hosts are
    taken in its order, the first one being the node on which the job script runs. It exists on that node only.
    A job that continues another one keeps the first one's id, which its script puts into SEGDIST_JOB_ID: the step that
    it goes on with is still that job's.

    Raises:
        ConfigError: where there is no node file.
    """
    if "PBS_JOBID" not in environ:
        return None
    name = environ.get("PBS_NODEFILE", "")
    try:
        lines = read(name).split()
    except OSError as error:
        raise ConfigError(
            f"PBS_NODEFILE={name!r}: cannot be read ({error.strerror}); PBS has it on the job's first node only, so "
            "start the launcher there, once, from the job script"
        ) from error
    require(bool(lines), f"PBS_NODEFILE={name!r}: has no line; submit the job again")
    return Allocation(
        "pbs",
        environ.get("SEGDIST_JOB_ID") or short_id(environ["PBS_JOBID"]),
        restarts(environ),
        tuple(dict.fromkeys(lines)),
        lines.count(lines[0]),
    )


def pbsdsh_lines(environ: Mapping[str, str], read: ReadText = read_text) -> dict[str, int] | None:
    """The first line of each host in the node file, from 0: what OpenPBS' ``pbsdsh -n`` takes; None in Torque.

    Torque tells its jobs their PBS_VNODENUM, and its pbsdsh takes a host's name; that of OpenPBS does neither.
    """
    if "PBS_NODEFILE" not in environ or "PBS_VNODENUM" in environ:
        return None
    try:
        lines = read(environ["PBS_NODEFILE"]).split()
    except OSError:  # pbs_allocation has said so
        return None
    return {host: lines.index(host) for host in dict.fromkeys(lines)}


def seconds_to_save(environ: Mapping[str, str], now: float) -> float | None:
    """How long until the ranks have to be asked to save, from the job's end and the margin; None without a limit.

    A margin that is longer than half of the time that is left is shortened to that half: nothing is trained else.

    Raises:
        ConfigError: for a value that is no number.
    """
    if not environ.get(JOB_END):
        return None
    try:
        end, margin = float(environ[JOB_END]), float(environ.get(SAVE_MARGIN) or _DEFAULT_MARGIN_S)
    except ValueError as error:
        raise ConfigError(
            f"{JOB_END}={environ[JOB_END]!r}, {SAVE_MARGIN}={environ.get(SAVE_MARGIN)!r}: must be seconds; unset them"
        ) from error
    return max(0.0, end - now - min(margin, (end - now) / 2))


@contextlib.contextmanager
def call_later(seconds: float | None, call: Callable[[], None]) -> Iterator[None]:
    """Call ``call`` from another thread after that time, unless the block has ended by then; None is never."""
    timer = threading.Timer(seconds, call) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


@contextlib.contextmanager
def save_before_job_end(
    environ: Mapping[str, str] = os.environ, now: Callable[[], float] = time.time
) -> Iterator[None]:
    """Send this process SIGUSR1 the margin before the job's end: PBS gives no warning of its own."""
    seconds = seconds_to_save(environ, now())
    if seconds is not None and float(environ.get(SAVE_MARGIN) or _DEFAULT_MARGIN_S) > seconds:
        log_line(
            f"warning: the job ends {2 * seconds:.0f} s from now, so it saves {seconds:.0f} s before that, and not "
            f"{SAVE_MARGIN}={environ.get(SAVE_MARGIN) or f'{_DEFAULT_MARGIN_S:.0f}'}; ask for more walltime"
        )
    with call_later(seconds, lambda: os.kill(os.getpid(), signal.SIGUSR1)):
        yield
