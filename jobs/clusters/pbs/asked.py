"""What a job that was submitted by hand has been asked for, from qstat's answer: so that another can continue it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.pbs.qstat_text import read_json

_RESOURCES = {"pbspro": ("select", "place", "walltime"), "torque": ("nodes", "mem", "pmem", "vmem", "walltime")}
_OPTIONS = {
    "queue": "-q", "Job_Name": "-N", "Account_Name": "-A", "Mail_Points": "-m", "Mail_Users": "-M", "Join_Path": "-j",
    "Keep_Files": "-k", "Priority": "-p", "Output_Path": "-o", "Error_Path": "-e",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A job's own options for qsub, the variables that it was given, and when it was made, in the server's words."""

    options: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    walltime: str = ""
    made: str = ""


def asked_of(text: str, dialect: Dialect, environ: Mapping[str, str]) -> Asked:
    """What qstat says of one job; ``environ`` is the job's, which has the values of its variables."""
    values = _torque(text) if dialect == "torque" else _pbspro(text)
    if not values:
        return Asked()
    resources = {name: str(value) for name, value in values["Resource_List"].items() if value}
    options: list[str] = []
    for name in _RESOURCES[dialect]:
        options += ["-l", f"{name}={resources[name]}"] if name in resources else []
    for name, option in _OPTIONS.items():
        value = str(values.get(name) or "")
        if value and not _is_default(name, value, str(values.get("Job_Name"))):
            options += [option, value]
    variables = tuple(n for n in values["Variable_List"] if n in environ and not n.startswith(("PBS_", "SEGDIST_JOB")))
    return Asked(tuple(options), variables, resources.get("walltime", ""), str(values.get("ctime") or ""))


def forget_others(folder: Path, first: str, made: str) -> None:
    """Remove the files of another server's job of this number, or of one before the server was installed anew.

    A job that the server runs again was made at the same time, and keeps its own.
    """
    note = folder / f"{first}_made"
    known = note.read_text(encoding="utf-8").strip() if note.exists() else ""
    if made and known != made:
        for path in [folder / f"{first}.pbs", *folder.glob(f"{first}_*")]:
            path.unlink(missing_ok=True)
        note.write_text(made + "\n", encoding="utf-8")


def _is_default(name: str, value: str, job_name: str) -> bool:
    """Whether qsub would choose the same, or, for an output file, one with the new job's number in its name."""
    if name in ("Output_Path", "Error_Path"):
        return re.search(rf"/{re.escape(job_name)}\.[oe]\d+(\.\S+)?$", value) is not None
    return value in {"Join_Path": "n", "Keep_Files": "n", "Priority": "0"}.get(name, "")


def _pbspro(text: str) -> dict[str, Any]:
    jobs = read_json(text) or {}
    return next(({"Resource_List": {}, "Variable_List": {}, **job} for job in jobs.values()), {})


def _torque(text: str) -> dict[str, Any]:
    match = re.search(r"<Data>.*?</Data>", text, re.DOTALL)
    job = ElementTree.fromstring(match[0]).find("Job") if match else None
    if job is None:
        return {}
    values: dict[str, Any] = {child.tag: child.text or "" for child in job}
    values["Resource_List"] = {child.tag: child.text or "" for child in job.iterfind("Resource_List/*")}
    values["Variable_List"] = re.findall(r"(?:^|,)([A-Za-z_]\w*)=", job.findtext("Variable_List") or "")
    return values
