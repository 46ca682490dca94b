"""The local cluster: jobs on this machine through submitit's LocalExecutor, and their processes.

submitit starts a job as a child in the caller's session, where a closed terminal or Ctrl-C would end it.
So the submission itself happens in a process with a session of its own::

    jobs.submit → python -m jobs.clusters.local (new session, ends at once)
                    → submitit's controller (the job's pid) → jobs.runner → launcher → ranks
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from jobs.spec import Job

TOKEN = "SEGDIST_JOB_TOKEN"
"""Environment variable that marks every process of a job."""
_YEAR_MIN = 366 * 24 * 60
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class SubmitError(RuntimeError):
    """The job could not be started. The message says where its output is."""


def submit(run: Path, job: Job) -> Job:
    """Start the job of a run folder whose ``run.json`` is written; return it with its id and process.

    Raises:
        SubmitError: where submitit fails.
    """
    folder = (run / job.submitit_folder).resolve()
    folder.mkdir(parents=True)
    log = folder / "submit.log"
    with log.open("wb") as output:
        code = subprocess.call(
            [sys.executable, "-m", "jobs.clusters.local", str(run.resolve()), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, TOKEN: job.token},
        )
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SubmitError(f"submitit did not start the job: {lines[-1] if lines else 'no output'}; see {log}")
    pid, started = (folder / "pid").read_text(encoding="ascii").split()
    return Job("local", pid, socket.gethostname(), int(pid), started, job.token, job.submitit_folder)


def _submit_here(run: str, folder: Path) -> None:
    import submitit

    from jobs.runner import run_steps

    executor = submitit.LocalExecutor(folder=folder)
    # A time limit of its own would kill long jobs: submitit's default is five minutes.
    executor.update_parameters(timeout_min=_YEAR_MIN, stderr_to_stdout=True)
    job = executor.submit(run_steps, run)
    # The controller is our child: it can be read here even if it has ended by now.
    (folder / "pid").write_text(f"{job.job_id} {_stat(int(job.job_id))[1]}\n", encoding="ascii")


def this_process() -> tuple[int, str]:
    """The pid of this process and when it started, as :class:`jobs.spec.Job` wants them."""
    return os.getpid(), _stat(os.getpid())[1]


def _stat(pid: int) -> tuple[str, str]:
    """State letter and start (boot id, clock ticks since boot) of a process; OSError where there is none."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text[text.rindex(")") + 2 :].split()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return fields[0], f"{boot}/{fields[19]}"


def process_started(pid: int) -> str | None:
    """When the process with that pid started, or None where it has ended (a zombie has).

    Pids are used again, but not by a process that started at the same clock tick.
    """
    try:
        state, started = _stat(pid)
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else started


def job_alive(job: Job) -> bool | None:
    """Whether the job's controlling process is alive; None where another host has to be asked."""
    if job.host != socket.gethostname():
        return None
    return process_started(job.pid) == job.pid_started


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
    if _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM)) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _submit_here(sys.argv[1], Path(sys.argv[2]))
