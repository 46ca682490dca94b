"""The server's memory: one JSON file a job, under one lock. Standard library only, as the programs start often.

The folder ``$PBS_REPLAY`` holds ``config.json`` (see :data:`DEFAULTS`), ``jobs/``, and ``spool/`` with the scripts and
the output that has not been delivered yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "dialect": "pbspro",
    "server": "pbshead",
    "nodes": {"n1": [], "n2": [], "n3": [], "n4": []},  # name → node properties
    "ncpus": 4,
    "namespaces": False,  # a host name and a hosts file of its own for every node
    "home": "",
    "bin": "",
    "boolean_resources": [],  # OpenPBS: what -l nodes=…:NAME may name
    "history": True,
    "keep_completed": 300,
    "kill_delay": 10.0,
    "down": False,
    "refuse": None,  # exit code and words of every qsub
    "trqauthd": True,
    "runs_deleted": False,  # Torque: a held job that is deleted runs
    "bad_output_s": 30.0,
    "max_poll_downtime": 300.0,
    "node_fail_requeue": 310.0,
    "default_walltime": "06:00:00",
}

Job = dict[str, Any]


class Store:
    """Configuration and jobs; use it inside ``with``, which takes the lock."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["PBS_REPLAY"])
        self.config = {**DEFAULTS, **json.loads((self.folder / "config.json").read_text())}
        self.torque = self.config["dialect"] == "torque"
        self.server: str = self.config["server"]

    @contextlib.contextmanager
    def locked(self) -> Iterator[Store]:
        """Alone with the jobs."""
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._purge()
            yield self

    def next_number(self) -> int:
        """A rejected submission uses one up too."""
        path = self.folder / "number"
        number = int(path.read_text()) + 1 if path.exists() else 1
        path.write_text(str(number))
        return number

    def path(self, key: str) -> Path:
        """The file of a job: ``2``, ``47[]``, ``47[3]``."""
        return self.folder / "jobs" / f"{key}.json"

    def save(self, job: Job) -> None:
        """Write one job whole."""
        path = self.path(job["key"])
        new = path.with_suffix(".new")
        new.write_text(json.dumps(job, indent=1))
        new.replace(path)

    def load(self, key: str) -> Job | None:
        """One job, or None."""
        path = self.path(key)
        return json.loads(path.read_text()) if path.exists() else None

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        jobs = [json.loads(path.read_text()) for path in (self.folder / "jobs").glob("*.json")]
        return sorted(jobs, key=lambda job: (job["number"], job["index"] if job["index"] is not None else -1))

    def ended(self, job: Job) -> bool:
        """Whether it has come to its end."""
        return job["state"] in "FCX"

    def end(self, job: Job, substate: int, status: int | None) -> None:
        """Record the end of a job."""
        job["state"] = "C" if self.torque else ("X" if job["index"] is not None else "F")
        job["substate"] = substate
        job["end"] = time.time()
        if status is not None:
            job["exit_status"] = status
        self.save(job)

    def _purge(self) -> None:
        if self.torque:
            for job in self.jobs():
                if self.ended(job) and time.time() - job["end"] > self.config["keep_completed"]:
                    self.path(job["key"]).unlink()


def key_of(identifier: str) -> str:
    """The key of a job id as people write it: without the server."""
    match = re.fullmatch(r"(\d+(?:\[\d*\])?)(?:\..*)?", identifier)
    return match[1] if match else identifier


def schedule(store: Store) -> None:
    """Start what can start; to be called with the lock held, after every change."""
    for parent in store.jobs():
        if parent["array"]:
            _look_at_array(store, parent)
    for job in store.jobs():
        if job["state"] not in "QH" or job["array"]:
            continue
        verdict = dependency(store, job)
        if verdict == "never":
            # OpenPBS deletes it, and history shows a success without an Exit_status. Torque deletes it as qdel does.
            store.end(job, 92 if not store.torque else 0, 271 if store.torque else None)
            continue
        if verdict == "wait":
            job["state"] = "H"
            store.save(job)
            continue
        if job["index"] is not None and not _array_has_room(store, job):
            continue
        nodes = place(store, job)
        if nodes is None:
            possible = place(store, job, empty=True) is not None
            job["state"] = "Q"
            job["comment"] = (
                "Not Running: Not enough free nodes available" if possible else "Can Never Run: Insufficient amount"
            )
            store.save(job)
            continue
        job |= {"state": "R", "substate": 42, "nodes": nodes, "start": time.time(), "run_count": job["run_count"] + 1}
        store.save(job)
        with (store.folder / "mom.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-S", "-E", str(Path(__file__).with_name("main.py")), "mom", job["key"]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
    for parent in store.jobs():
        if parent["array"]:
            _look_at_array(store, parent)


def _elements(store: Store, parent: Job) -> list[Job]:
    return [job for job in store.jobs() if job["number"] == parent["number"] and job["index"] is not None]


def _array_has_room(store: Store, job: Job) -> bool:
    parent = store.load(f"{job['number']}[]")
    throttle = parent["array"]["throttle"] if parent else None
    return not throttle or sum(e["state"] in "RE" for e in _elements(store, job)) < throttle


def _look_at_array(store: Store, parent: Job) -> None:
    elements = _elements(store, parent)
    if elements and all(store.ended(e) for e in elements):
        if not store.ended(parent):
            worst = max((e.get("exit_status") or 0 for e in elements), default=0)
            store.end(parent, 92 if worst == 0 else 93, 1 if worst else 0)
            for element in elements:
                element["state"] = "C" if store.torque else "F"
                store.save(element)
    elif any(e["state"] != "Q" and e["state"] != "H" for e in elements) and parent["state"] != "B":
        parent["state"] = "B" if not store.torque else "R"
        store.save(parent)


def dependency(store: Store, job: Job) -> str:
    """``"go"``, ``"wait"`` or ``"never"``."""
    if job["stuck"]:
        return "wait"
    for group in filter(None, (job["depend"] or "").split(",")):
        kind, *identifiers = group.split(":")
        for identifier in identifiers:
            other = store.load(key_of(identifier))
            if other is None:
                return "never"
            if not store.ended(other):
                return "wait"
            if not store.torque and other["substate"] == 92 and "exit_status" not in other:
                return "never"  # it was deleted by a dependency, and takes with it whatever waits for it
            good = other.get("exit_status") == 0
            if (kind == "afterok" and not good) or (kind == "afternotok" and good):
                return "never"
    return "go"


def place(store: Store, job: Job, empty: bool = False) -> list[dict[str, Any]] | None:
    """``[{"name", "cpus", "lines"}]`` in the order of the node file, or None where there is no room."""
    free = dict.fromkeys(store.config["nodes"], store.config["ncpus"])
    for other in store.jobs() if not empty else []:
        if other["state"] in "RE" and not other["array"]:
            for node in other["nodes"]:
                free[node["name"]] -= node["cpus"]
    # Torque's node file is not in the order of the names.
    names = sorted(free, reverse=store.torque)
    taken: list[dict[str, Any]] = []
    for chunk in job["chunks"]:
        fitting = [
            name
            for name in names
            if free[name] >= chunk["cpus"]
            and set(chunk["properties"]) <= set(store.config["nodes"][name]) | set(store.config["boolean_resources"])
            and not (job["scatter"] and any(node["name"] == name for node in taken))
        ]
        if not fitting:
            return None
        free[fitting[0]] -= chunk["cpus"]
        taken.append({"name": fitting[0], "cpus": chunk["cpus"], "lines": chunk["lines"]})
    return taken
