"""``python -m jobs.clusters.pbs.qsub_entry SCRIPT [launcher options] TASK [options]``: what ``pbs/*.pbs`` run.

The launcher, and around it what a script submitted by hand lacks: it knows when the job will end, asks training to save
before that, and submits the job again with the same resources and the same options. The files of a chain of such jobs
are in ``.segdist-pbs`` in the folder of submission.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.clusters.pbs.arguments import split_args
from jobs.clusters.pbs.continuation import Continuation
from jobs.clusters.pbs.dialect import Dialect, find_dialect
from jobs.clusters.pbs.qstat import Call, call, qstat_command
from jobs.clusters.pbs.qstat_text import read_json
from jobs.clusters.pbs.resources import clock_seconds
from segdist.cli import run_command
from segdist.config import ConfigError, require
from segdist.launch.pbs_job import JOB_END, short_id
from segdist.run.exit_codes import TO_BE_CONTINUED

FOLDER = ".segdist-pbs"
LAUNCHER = (sys.executable, "-m", "segdist.launch")
_ASKED = {"pbspro": ("select", "place", "walltime"), "torque": ("nodes", "mem", "pmem", "vmem", "walltime")}


def resources_of(text: str, dialect: Dialect) -> dict[str, str]:
    """What a running job has asked for, from qstat's answer about it: the values of ``-l``, and its ``queue``."""
    found: dict[str, str] = {}
    if dialect == "torque":
        match = re.search(r"<Data>.*?</Data>", text, re.DOTALL)
        job = ElementTree.fromstring(match[0]).find("Job") if match else None
        if job is not None:
            found = {child.tag: child.text or "" for child in job.iterfind("Resource_List/*")}
            found["queue"] = job.findtext("queue") or ""
    else:
        for values in (read_json(text) or {}).values():
            found = {name: str(value) for name, value in values.get("Resource_List", {}).items()}
            found["queue"] = str(values.get("queue", ""))
    return {name: value for name, value in found.items() if name in (*_ASKED[dialect], "queue") and value}


def without_resources(script: str) -> str:
    """A script without its ``#PBS -l`` and ``-q`` lines: they would clash with those of the command line."""
    return "".join(line for line in script.splitlines(keepends=True) if not re.match(r"#PBS\s+-[lq]\b", line))


def again_command(script: Path, resources: Mapping[str, str], job: str, first: str) -> list[str]:
    """The command that submits the continuation, to begin when this job has ended."""
    command = ["qsub", "-W", f"depend=afterany:{job}", "-v", f"SEGDIST_JOB_ID={first},PYTHON={sys.executable}"]
    for name, value in resources.items():
        command += ["-q", value] if name == "queue" else ["-l", f"{name}={value}"]
    return [*command, str(script)]


def run(
    script: Path,
    words: Sequence[str],
    environ: Mapping[str, str],
    qsub: Call = call,
    launcher: Sequence[str] = LAUNCHER,
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
    continuation = Continuation(folder, first)
    saved, options = folder / f"{first}.pbs", folder / f"{first}_options.json"
    if first == job:
        shutil.copyfile(script, saved)
        words = [*words, *_default_run(words, first)]
        options.write_text(json.dumps(list(words)), encoding="utf-8")
    else:
        words = json.loads(options.read_text(encoding="utf-8"))
    continuation.note_start(job)
    resources = _ask(job, qsub)
    more = {"SEGDIST_JOB_ID": first, "SEGDIST_RESTART": str(continuation.starts - 1), **_end(resources, environ)}
    code = _launch([*launcher, *words], {**environ, **more})
    if code != TO_BE_CONTINUED:
        return code
    script_text = saved.read_text(encoding="utf-8", errors="surrogateescape")  # a copy may be in another encoding
    saved.write_text(without_resources(script_text), encoding="utf-8", errors="surrogateescape")
    done = qsub(again_command(saved, resources, environ["PBS_JOBID"], first))
    if done.returncode:
        print(f"error: cannot be continued: {done.stderr.strip()}; submit it again", file=sys.stderr)
        return code
    new = short_id(done.stdout.strip().splitlines()[-1])
    continuation.note_job(new)
    print(f"to be continued by job {new}", flush=True)
    return 0


def _default_run(words: Sequence[str], job: str) -> list[str]:
    named = any(word.partition("=")[0] in ("--run", "--config", "--help") for word in words)
    return [] if named or not {"train", "pipeline"} & set(words) else ["--run", f"runs/pbs-{job}"]


def _ask(job: str, run_qstat: Call) -> dict[str, str]:
    try:
        dialect = find_dialect("auto")
    except ConfigError as error:
        print(f"warning: {error}; the walltime is not known", file=sys.stderr)
        return {}
    done = run_qstat(qstat_command([job], dialect, history=False))
    return resources_of(done.stdout, dialect) if done.returncode == 0 else {}


def _end(resources: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """When the job will end. It has begun a moment ago; Torque says its walltime in the environment too."""
    text = resources.get("walltime", "")
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
    return run_command(lambda: run(Path(words[0]), split_args(words[1:]), os.environ))


if __name__ == "__main__":
    sys.exit(main())
