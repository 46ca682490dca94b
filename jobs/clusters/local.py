"""The local cluster: jobs on this machine through submitit's LocalExecutor, and their processes.

submitit starts a job as a child in the caller's session, where a closed terminal or Ctrl-C would end it.
So the submission itself happens in a process with a session of its own::

    jobs.submit → python -m jobs.clusters.local (new session, ends at once)
                    → submitit's controller (the job's pid) → jobs.runner → launcher → ranks
"""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

from jobs.clusters.scheduler import SubmitError
from jobs.record.processes import TOKEN, stat_of
from jobs.record.run_json import Job

_YEAR_MIN = 366 * 24 * 60


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
    return dataclasses.replace(job, id=pid, host=socket.gethostname(), pid=int(pid), pid_started=started)


def _submit_here(run: str, folder: Path) -> None:
    import submitit

    from jobs.runner.run import run_steps

    executor = submitit.LocalExecutor(folder=folder)
    # A time limit of its own would kill long jobs: submitit's default is five minutes.
    executor.update_parameters(timeout_min=_YEAR_MIN, stderr_to_stdout=True)
    job = executor.submit(run_steps, run)
    # The controller is our child: it can be read here even if it has ended by now.
    (folder / "pid").write_text(f"{job.job_id} {stat_of(int(job.job_id))[1]}\n", encoding="ascii")


if __name__ == "__main__":
    _submit_here(sys.argv[1], Path(sys.argv[2]))
