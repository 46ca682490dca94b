"""``python -m jobs.clusters.pbs.qsub_entry SCRIPT [launcher options] TASK [options]``: what ``pbs/*.pbs`` run.

The launcher, and around it what a script submitted by hand lacks: it knows when the job will end, asks training to save
before that, and submits the job again with the same resources and the same options. The files of a chain of such jobs
are in ``.segdist-pbs`` in the folder of submission.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobs.clusters.pbs.arguments import split_args
from jobs.clusters.pbs.asked import Asked, asked_of, forget_others
from jobs.clusters.pbs.continuation import Continuation
from jobs.clusters.pbs.dialect import find_dialect
from jobs.clusters.pbs.qstat import Call, call, qstat_command
from jobs.clusters.pbs.resources import clock_seconds
from jobs.record.endings import write_failure
from segdist.cli import run_command
from segdist.config import ConfigError, require
from segdist.launch.pbs_job import JOB_END, short_id
from segdist.run.exit_codes import TO_BE_CONTINUED
from segdist.run.folder import RunFolder

FOLDER = ".segdist-pbs"
LAUNCHER = (sys.executable, "-m", "segdist.launch")


def without_resources(script: str) -> str:
    """A script without its ``#PBS -l`` and ``-q`` lines: they would clash with those of the command line."""
    return "".join(line for line in script.splitlines(keepends=True) if not re.match(r"#PBS\s+-[lq]\b", line))


def again_command(script: Path, asked: Asked, job: str, first: str) -> list[str]:
    """The command that submits the continuation, to begin when this job has ended.

    Variables are given by name: qsub takes their values from the environment, whatever characters they have.
    """
    given = [name for name in asked.variables if name not in ("SEGDIST_JOB_ID", "PYTHON")]
    variables = ",".join([f"SEGDIST_JOB_ID={first}", f"PYTHON={sys.executable}", *given])
    return ["qsub", "-W", f"depend=afterany:{job}", "-v", variables, *asked.options, str(script)]


def run(
    script: Path,
    words: Sequence[str],
    environ: Mapping[str, str],
    qsub: Call = call,
    launcher: Sequence[str] = LAUNCHER,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Run the launcher in this job; its exit code, or 0 where another job goes on with its work.

    Raises:
        ConfigError: outside a PBS job.
    """
    require("PBS_JOBID" in environ, f"{script}: runs inside a PBS job; submit it with qsub")
    job = short_id(environ["PBS_JOBID"])
    first = environ.get("SEGDIST_JOB_ID") or job
    folder = Path(FOLDER)
    folder.mkdir(exist_ok=True)
    asked = _ask(job, qsub, environ)
    if first == job:
        forget_others(folder, first, asked.made)
    continuation = Continuation(folder, first)
    saved, options = folder / f"{first}.pbs", folder / f"{first}_options.json"
    if first == job:
        shutil.copyfile(script, saved)
        words = [*words, *_default_run(words, first)]
        options.write_text(json.dumps(list(words)), encoding="utf-8")
    else:
        words = json.loads(options.read_text(encoding="utf-8"))
    continuation.note_start(job)
    more = {"SEGDIST_JOB_ID": first, "SEGDIST_RESTART": str(continuation.starts - 1), **_end(asked.walltime, environ)}
    code = _launch([*launcher, *words], {**environ, **more})
    if code != TO_BE_CONTINUED:
        return code
    script_text = saved.read_text(encoding="utf-8", errors="surrogateescape")  # a copy may be in another encoding
    saved.write_text(without_resources(script_text), encoding="utf-8", errors="surrogateescape")
    done = _patiently(qsub, again_command(saved, asked, environ["PBS_JOBID"], first), pause)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"qsub: exit code {done.returncode}"])[-1]
        error = f"saved, but cannot be continued by another job ({said}); submit it again with the same --run"
        print(f"error: {error}", file=sys.stderr)
        _write_refusal(words, error, {"cluster": "pbs", "id": first})
        return 1
    new = short_id(done.stdout.strip().splitlines()[-1])
    continuation.note_job(new)
    print(f"to be continued by job {new}", flush=True)
    return 0


def _default_run(words: Sequence[str], job: str) -> list[str]:
    named = any(word.partition("=")[0] in ("--run", "--config", "--help") for word in words)
    return [] if named or not {"train", "pipeline"} & set(words) else ["--run", f"runs/pbs-{job}"]


def _patiently(qsub: Call, command: Sequence[str], pause: Callable[[float], None]) -> subprocess.CompletedProcess[str]:
    """qsub, tried again for a minute with growing pauses: a server restarts."""
    for seconds in (1, 2, 4, 8, 16, 32):
        done = qsub(command)
        if done.returncode == 0:
            return done
        print(f"qsub (exit code {done.returncode}): {done.stderr.strip()}; trying again in {seconds} s", flush=True)
        pause(seconds)
    return qsub(command)


def _write_refusal(words: Sequence[str], error: str, job: dict[str, str]) -> None:
    """The result of the training that nobody continues; what runs is in its options."""
    named = [word.partition("=")[2] or after for word, after in zip(words, [*words[1:], ""])
             if word.partition("=")[0] == "--run"]  # fmt: skip
    if named and {"train", "pipeline"} & set(words):
        write_failure(RunFolder(named[-1]).step("train"), error, job)


def _call_with(environ: Mapping[str, str]) -> Call:
    """PBS' programs may be off a node's PATH: the submitting shell's is in PBS_O_PATH."""
    path = ":".join(filter(None, (environ.get("PATH"), environ.get("PBS_O_PATH"))))
    return functools.partial(call, path=path)


def _ask(job: str, run_qstat: Call, environ: Mapping[str, str]) -> Asked:
    try:
        dialect = find_dialect("auto", lambda command: _version(command, run_qstat))
    except ConfigError as error:
        print(f"warning: {error}; the walltime is not known", file=sys.stderr)
        return Asked()
    done = run_qstat(qstat_command([job], dialect, history=False))
    return asked_of(done.stdout, dialect, environ) if done.returncode == 0 else Asked()


def _version(command: list[str], run: Call) -> str:
    done = run(command)
    return done.stdout + done.stderr


def _end(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """When the job will end. It has begun a moment ago; Torque says its walltime in the environment too."""
    if text:
        return {JOB_END: str(int(time.time()) + clock_seconds(text))}
    if environ.get("PBS_WALLTIME", "").isdecimal():
        return {JOB_END: str(int(time.time()) + int(environ["PBS_WALLTIME"]))}
    print("warning: the walltime is not known: training will not save before it", file=sys.stderr)
    return {}


def _launch(command: Sequence[str], environ: Mapping[str, str]) -> int:
    process = subprocess.Popen(command, env=dict(environ))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda n, _: process.send_signal(n))
    code = process.wait()
    return code if code >= 0 else 128 - code


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if words else 2
    return run_command(lambda: run(Path(words[0]), split_args(words[1:]), os.environ, _call_with(os.environ)))


if __name__ == "__main__":
    sys.exit(main())
