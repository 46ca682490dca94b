"""The local cluster: jobs on this machine through submitit's LocalExecutor, and their processes.

submitit starts a job as a child in the caller's session, where a closed terminal or Ctrl-C would end it.
So the submission itself happens in a process with a session of its own::

    jobs.submit → python -m jobs.clusters.local (new session, ends at once)
                    → submitit's controller (the job's pid) → jobs.runner → launcher → ranks
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from jobs.clusters.scheduler import SubmitError
from jobs.record.processes import TOKEN, stat_of
from jobs.record.run_json import Job, JobSpec, read_spec, write_spec
from segdist.run.folder import RunFolder
from segdist.system.output import prepare_output

_YEAR_MIN = 366 * 24 * 60


def submit(run: Path, spec: JobSpec) -> Job:
    """Start the job of a run folder whose ``run.json`` is written; return the job, which is in ``run.json`` by then.

    The process that starts it adds it there: it goes on where this one is ended meanwhile.

    Raises:
        SubmitError: where submitit fails.
    """
    folder = (run / spec.submitit_folder).resolve()
    folder.mkdir(parents=True)
    log = folder / "submit.log"
    with log.open("wb") as output:
        code = subprocess.call(
            [sys.executable, "-m", "jobs.clusters.local", str(run.resolve()), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, TOKEN: spec.token},
        )
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SubmitError(f"submitit did not start the job: {lines[-1] if lines else 'no output'}; see {log}")
    return read_spec(RunFolder(run).run_json).jobs[0]


def _submit_here(run: str, folder: Path) -> None:
    import submitit

    from jobs.runner.run import run_steps

    prepare_output(encoding="utf-8")

    executor = submitit.LocalExecutor(folder=folder)
    # A time limit of its own would kill long jobs: submitit's default is five minutes.
    executor.update_parameters(timeout_min=_YEAR_MIN, stderr_to_stdout=True)
    job = executor.submit(run_steps, run)
    path = RunFolder(run).run_json
    spec = read_spec(path)
    # The controller is our child: it can be read here even if it has ended by now.
    started = Job(
        cluster="local", id=job.job_id, host=socket.gethostname(), steps=tuple(step.step for step in spec.steps),
        submitit_folder=spec.submitit_folder, pid=int(job.job_id), pid_started=stat_of(int(job.job_id))[1],
        token=spec.token,
    )  # fmt: skip
    write_spec(path, spec.with_jobs([started]))


if __name__ == "__main__":
    _submit_here(sys.argv[1], Path(sys.argv[2]))
