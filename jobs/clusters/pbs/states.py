"""What a PBS server says about jobs, in one vocabulary: pure functions of qstat's text.

The words are Slurm's, as submitit asks for: anything but PENDING, RUNNING, COMPLETING and UNKNOWN is an end.
"""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.pbs.qstat_text import read_json
from segdist.launch.pbs_job import short_id

ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "GONE")
_STATES = {
    "Q": "PENDING", "H": "PENDING", "W": "PENDING", "T": "PENDING",
    "R": "RUNNING", "B": "RUNNING", "S": "RUNNING", "U": "RUNNING", "E": "COMPLETING", "M": "UNKNOWN",
}  # fmt: skip
_FINISHED = ("F", "C", "X")
_AT_WORK = ("R", "E")

_PBSPRO_ENDS = {-29: "TIMEOUT", -14: "NODE_FAIL", -20: "NODE_FAIL"}
_TORQUE_ENDS = {-11: "TIMEOUT"}
_DELETED_SUBSTATE = 91
_TERM_BY_SERVER = 271


@dataclass(frozen=True)
class JobState:
    """One job. ``word`` is Slurm's; ``text`` says in PBS' words how it ended or why it waits."""

    word: str
    text: str = ""
    exit_code: int | None = None
    hosts: str = ""
    elapsed_s: float | None = None
    runs: int = 0

    @property
    def ended(self) -> bool:
        """Whether it has come to an end."""
        return self.word in ENDS


def read_jobs(text: str, dialect: Dialect) -> dict[str, JobState] | None:
    """The jobs in qstat's answer by short id (``2``, ``47_3``), or None where it is no answer."""
    if dialect == "torque":
        return _read_xml(text)
    jobs = read_json(text)
    return None if jobs is None else pbspro_states(jobs)


def pbspro_states(jobs: Mapping[str, Any]) -> dict[str, JobState]:
    """The jobs that OpenPBS described, by short id; what has no state is no description of a job."""
    whole = {name: values for name, values in jobs.items() if values.get("job_state") and re.match(r"\d", name)}
    return {short_id(name): pbspro_state(values) for name, values in whole.items()}


def host_names(exec_host: str) -> str:
    """``n3/0-1+n2/0*4`` is ``n3,n2``: the nodes of a job, in its order."""
    return ",".join(dict.fromkeys(part.partition("/")[0] for part in exec_host.split("+") if part))


def pbspro_state(values: Mapping[str, Any]) -> JobState:
    """One entry of OpenPBS' JSON. Exit_status counts in a final state only: a requeued job in Q still has one."""
    letter = str(values.get("job_state", ""))
    hosts = host_names(str(values.get("exec_host", "")))
    used = values.get("resources_used")
    elapsed = _seconds(str(used.get("walltime", ""))) if isinstance(used, Mapping) else None
    runs = int(values.get("run_count", 0) or 0)
    if letter not in _FINISHED:
        return JobState(_STATES.get(letter, "UNKNOWN"), str(values.get("comment", "")), None, hosts, elapsed, runs)
    status = values.get("Exit_status")
    if not isinstance(status, int):
        return JobState("CANCELLED", "never ran: deleted, or what it depended on failed", None, hosts, elapsed, runs)
    word, text = end_of(status, _PBSPRO_ENDS, "pbspro")
    if values.get("substate") == _DELETED_SUBSTATE:
        word, text = "CANCELLED", f"deleted (Exit_status {status})"
    return JobState(word, text, status, hosts, elapsed, runs)


def _read_xml(text: str) -> dict[str, JobState] | None:
    """Torque's ``qstat -x``: one document, or one per id that was asked for."""
    documents = re.findall(r"<Data>.*?</Data>", text, re.DOTALL)
    if not documents:
        return None
    found: dict[str, JobState] = {}
    for document in documents:
        try:
            root = ElementTree.fromstring(document)
        except ElementTree.ParseError:
            return None
        for job in root.iter("Job"):
            found[short_id(job.findtext("Job_Id") or "")] = torque_state({child.tag: child.text or "" for child in job})
    return found


def torque_state(values: Mapping[str, str], now: Callable[[], float] = time.time) -> JobState:
    """One job of Torque's XML; times are seconds since 1970."""
    letter, hosts = values.get("job_state", ""), host_names(values.get("exec_host", ""))
    start, end = values.get("start_time", ""), values.get("comp_time", "")
    until = float(end) if end.isdecimal() else now() if letter in _AT_WORK else None
    elapsed = max(0.0, until - float(start)) if start.isdecimal() and until is not None else None
    if letter not in _FINISHED:
        return JobState(_STATES.get(letter, "UNKNOWN"), values.get("comment", ""), None, hosts, elapsed)
    text = values.get("exit_status", "")
    if not re.fullmatch(r"-?\d+", text):
        return JobState("CANCELLED", "never ran: deleted, or what it depended on failed", None, hosts)
    word, why = end_of(int(text), _TORQUE_ENDS, "torque")
    return JobState(word, why, int(text), hosts, elapsed)


def end_of(status: int, known: Mapping[int, str], dialect: Dialect) -> tuple[str, str]:
    """Slurm's word and an explanation for an exit status."""
    if status == 0:
        return "COMPLETED", ""
    if status in known:
        why = {"TIMEOUT": "walltime exceeded", "NODE_FAIL": "a node was lost"}[known[status]]
        return known[status], f"{why} (Exit_status {status})"
    if status == _TERM_BY_SERVER:
        return "CANCELLED", f"deleted (Exit_status {status})"
    if status < 0:
        return "FAILED", f"the server could not run it (Exit_status {status})"
    base = 256 if dialect == "pbspro" else 128
    if status > base:
        return "FAILED", f"killed by signal {status - base} (Exit_status {status})"
    if status == 254 and dialect == "pbspro":
        return "FAILED", "exit code 254: mostly the script could not be executed"
    return "FAILED", f"exit code {status}"


def unknown_ids(stderr: str, asked: Iterable[str]) -> set[str]:
    """Those of the ids that asked for of which qstat says that it does not know them, or that they have finished."""
    named = set()
    for line in stderr.splitlines():
        if re.search(r"unknown job", line, re.IGNORECASE) or "has finished" in line:
            named |= {short_id(word) for word in re.findall(r"\d+(?:\[\d*\])?(?:-\d+)?(?:\.[\w.-]+)?", line)}
    return named & set(asked)


def _seconds(text: str) -> float | None:
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        return None
    hours, minutes, seconds = (int(part) for part in parts)
    return float(hours * 3600 + minutes * 60 + seconds)
