"""One call to qstat for all jobs. The exit code comes before the text, and no answer is not "failed"."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence

from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.pbs.qstat_text import read_text
from jobs.clusters.pbs.states import JobState, pbspro_states, read_jobs, unknown_ids

Call = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
_UNKNOWN_JOB, _HAS_FINISHED = 153, 35
_CALL_S = 60


def call(command: Sequence[str], path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of PBS, found on ``path`` or else on PATH; one that is not there or is silent ends with 255."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_CALL_S,
            env={**os.environ, "PATH": path} if path else None,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 255, "", f"{command[0]} is not on PATH")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 255, "", f"{command[0]} gave no answer in {_CALL_S} s")


def pbs_id(identifier: str) -> str:
    """``47_3`` as PBS has it: ``47[3]``."""
    number, _, index = identifier.partition("_")
    return f"{number}[{index}]" if index else number


def qstat_command(ids: Sequence[str], dialect: Dialect, history: bool = True, plain: bool = False) -> list[str]:
    """qstat for these jobs, finished ones too, in a form that programs read, or in OpenPBS' plain text."""
    names = [pbs_id(one) for one in ids]
    if dialect == "torque":
        return ["qstat", "-x", *names]
    return ["qstat", *(["-x"] if history else []), "-f", *([] if plain else ["-F", "json"]), *names]


def query(ids: Sequence[str], dialect: Dialect, run: Call = call) -> Mapping[str, JobState]:
    """What the server knows about each of ``ids``; all of them are in the answer.

    GONE: the server says that it knows the job no more. UNKNOWN: it did not say, so ask again. One unknown id spoils
    the exit code of the whole answer, but not its text: who is unknown is named on stderr. A server without history
    answers ``-x`` with nothing, so it is asked again without. A job that OpenPBS' JSON does not show whole is looked up
    in its plain text.
    """
    if not ids:
        return {}
    done, history = run(qstat_command(ids, dialect)), True
    nothing = dialect == "pbspro" and done.returncode == 0 and read_jobs(done.stdout, dialect) is None
    if nothing and re.search("history", done.stderr, re.IGNORECASE):
        done, history = run(qstat_command(ids, dialect, history=False)), False
    if done.returncode not in (0, _UNKNOWN_JOB, _HAS_FINISHED):
        return dict.fromkeys(ids, JobState("UNKNOWN", _said(done)))
    known = read_jobs(done.stdout, dialect) or {}
    gone = unknown_ids(done.stderr, ids) if done.returncode else set()
    hidden = [one for one in ids if one not in known and _is_named(one, done.stdout)]
    if hidden and dialect == "pbspro":
        known = {**pbspro_states(read_text(run(qstat_command(hidden, dialect, history, plain=True)).stdout)), **known}
    silent = JobState("UNKNOWN", _said(done))
    return {one: known.get(one) or (JobState("GONE") if one in gone else silent) for one in ids}


def _is_named(identifier: str, document: str) -> bool:
    return re.search(rf'"{re.escape(pbs_id(identifier))}(\.[^"]*)?":\s*{{', document) is not None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"qstat ended with {done.returncode} and said nothing about it"
