"""qstat and qdel: what they print, and above all with which exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from qstat_json import print_json
from store import Job, Store, key_of, schedule


def main(words: list[str]) -> int:
    """qstat: JSON in OpenPBS (``-f -F json``), XML in Torque (``-x``); the rest in a plain table."""
    store = Store()
    if "--version" in words:
        print("Version: 6.1.3\nCommit: 170ba4d" if store.torque else "pbs_version = 23.06.06")
        return 0
    known, full, as_json = False, False, False
    identifiers: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-F" and not store.torque:
            as_json = rest.pop(0) == "json"
        elif word == "-x":
            known = True
        elif word == "-f":
            full = True
        elif word.startswith("-"):
            print(f"qstat: invalid option -- '{word[1:]}'", file=sys.stderr)
            return 2
        else:
            identifiers.append(word)
    if store.torque and not store.config["trqauthd"]:
        print("Unable to communicate with pbshead. Error in connection to trqauthd (15137)", file=sys.stderr)
        return 0
    if store.config["down"]:
        print("qstat: cannot connect to server pbshead (errno=15010)", file=sys.stderr)
        if as_json:
            print(_document(store, {}))
        return 255
    with store.locked():
        if store.torque:
            return _torque(store, identifiers, as_xml=known, full=full)
        return _openpbs(store, identifiers, history=known, full=full, as_json=as_json)


def _openpbs(store: Store, identifiers: list[str], history: bool, full: bool, as_json: bool) -> int:
    code = 0
    chosen: dict[str, Job] = {}
    if history and not store.config["history"]:
        print("qstat: PBS is not configured to maintain job history", file=sys.stderr)
        if as_json:
            print(_document(store, {}))
        return 0
    for identifier in identifiers or [job["key"] for job in store.jobs() if history or not store.ended(job)]:
        job = store.load(key_of(identifier))
        forgotten = job is not None and store.ended(job) and job["state"] == "F" and not store.config["history"]
        if job is None or forgotten:
            print(f"qstat: Unknown Job Id {key_of(identifier)}.{store.server}", file=sys.stderr)
            code = 153
        elif job["state"] == "F" and not history:
            print(f"qstat: {job['key']}.{store.server} Job has finished, use -x or -H to obtain historical job "
                  "information", file=sys.stderr)  # fmt: skip
            code = code or 35
        else:
            chosen[f"{job['key']}.{store.server}"] = job
    if as_json:
        print(_document(store, {name: _attributes(store, job) for name, job in chosen.items()}))
    elif full:
        for name, job in chosen.items():
            print(f"Job Id: {name}\n    Job_Name = {job['name']}\n    job_state = {job['state']}")
            print(f"    Resource_List.walltime = {_clock(job['walltime'])}")
    else:
        for name, job in chosen.items():
            print(_row(name, job, "workq"))
    return code


def _document(store: Store, jobs: dict[str, Any]) -> str:
    head = {"timestamp": int(time.time()), "pbs_version": "23.06.06", "pbs_server": store.server}
    return print_json({**head, "Jobs": jobs} if jobs else head)


def _attributes(store: Store, job: Job) -> dict[str, Any]:
    values: dict[str, Any] = {
        "Job_Name": job["name"], "Job_Owner": f"user@{store.server}", "job_state": job["state"],
        "server": store.server, "substate": job["substate"], "run_count": job["run_count"],
        "Resource_List": {
            "select": "1:ncpus=1", "place": "scatter" if job["scatter"] else "pack", **job["resources"],
            "walltime": _clock(job["walltime"]), "nodect": len(job["chunks"]),
        },
        "Variable_List": {name: text.replace("\\", "\\\\") for name, text in _variables(store, job).items()},
        "Submit_arguments": job["submit_arguments"], **job["shown"],
    }  # fmt: skip
    if job["comment"] and job["state"] in "QH":
        values["comment"] = job["comment"]
    if job["nodes"]:
        values["exec_host"] = "+".join(f"{node['name']}/0" for node in job["nodes"])
        values["resources_used"] = {"walltime": _clock(int(time.time() - job["start"]))}
    if "exit_status" in job:  # also in E, and in Q after a requeue
        values["Exit_status"] = job["exit_status"]
    if job["array"]:
        values["array"] = True
    return values


def _torque(store: Store, identifiers: list[str], as_xml: bool, full: bool) -> int:
    code = 0
    chosen: list[Job] = []
    for identifier in identifiers or [job["key"] for job in store.jobs()]:
        job = store.load(key_of(identifier))
        if job is None:
            print(f"qstat: Unknown Job Id Error {identifier}", file=sys.stderr)
            code = 153
        else:
            chosen.append(job)
    if as_xml:
        body = "".join(_element(store, job) for job in chosen)
        print(f"<Data>{body}</Data>" if chosen else "", end="\n" if chosen else "")
    elif full:
        for job in chosen:
            print(f"Job Id: {job['key']}.{store.server}\n    job_state = {job['state']}")
            print(f"    Resource_List.walltime = {_clock(job['walltime'])}")
    else:
        for job in chosen:
            print(_row(f"{job['key']}.{store.server}", job, "batch"))
    return code


def _element(store: Store, job: Job) -> str:
    values = {"Job_Id": f"{job['key']}.{store.server}", "Job_Name": job["name"], "job_state": job["state"],
              "Variable_List": ",".join(f"{name}={text}" for name, text in _variables(store, job).items()),
              **job["shown"]}  # fmt: skip
    if job["nodes"]:
        values["exec_host"] = "+".join(f"{node['name']}/{_cores(node['lines'])}" for node in job["nodes"])
        values["start_time"] = str(int(job["start"]))
    if "exit_status" in job:
        values["exit_status"] = str(job["exit_status"])
    if "end" in job:
        values["comp_time"] = str(int(job["end"]))
    asked = {**job["resources"], "walltime": _clock(job["walltime"])}
    return f"<Job><Resource_List>{_children(asked)}</Resource_List>{_children(values)}</Job>"


def _variables(store: Store, job: Job) -> dict[str, str]:
    return {"PBS_O_WORKDIR": job["workdir"], "PBS_O_HOST": store.server, **job["variables"]}


def _row(name: str, job: Job, queue: str) -> str:
    return f"{name:17.17} {job['name']:16.16} {'dev':16} {'00:00:00':8} {job['state']} {queue:5}"


def _children(values: dict[str, str]) -> str:
    return "".join(f"<{name}>{escape(text)}</{name}>" for name, text in values.items())


def _cores(lines: int) -> str:
    return "0" if lines == 1 else f"0-{lines - 1}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def qdel(words: list[str]) -> int:
    """qdel ID…; an array's ``47[]`` takes its elements with it."""
    store = Store()
    if store.config["down"]:
        print("qdel: cannot connect to server pbshead (errno=15010)", file=sys.stderr)
        return 162
    code = 0
    with store.locked():
        for identifier in (word for word in words if not word.startswith("-")):
            job = store.load(key_of(identifier))
            if job is None:
                print(f"qdel: Unknown Job Id {identifier}", file=sys.stderr)
                code = 153
                continue
            if store.ended(job):
                print(f"qdel: Job has finished {job['key']}.{store.server}" if not store.torque else
                      f"qdel: Request invalid for state of job {identifier}", file=sys.stderr)  # fmt: skip
                code = 170 if store.torque else 35
                continue
            elements = [e for e in store.jobs() if e["number"] == job["number"] and e["index"] is not None]
            for one in elements if job["array"] else [job]:
                if one["state"] in "RE":
                    (store.folder / f"kill.{one['key']}").touch()
                elif store.config["runs_deleted"] and one["state"] == "H":
                    store.save({**one, "state": "Q", "depend": "", "stuck": False})
                elif not store.ended(one):
                    store.end(one, 91, 271)
        schedule(store)
    return code


def ssh(words: list[str]) -> int:
    """ssh HOST COMMAND: no PBS variable, $HOME; what it starts outlives it, and is no part of any job."""
    from mom import enter_node

    store = Store()
    rest = list(words)
    while rest[0].startswith("-"):
        rest = rest[2:] if rest[0] == "-o" else rest[1:]
    host, *command = rest
    environ = {"HOME": store.config["home"], "PATH": "/usr/bin:/bin", "SHELL": "/bin/bash"}
    process = subprocess.Popen(
        ["/bin/bash", "-c", " ".join(command)], env=environ, cwd=store.config["home"], start_new_session=True,
        preexec_fn=enter_node(store, host, first=False),
    )  # fmt: skip
    sys.stdin.close()
    Path("/proc/self/fd/0").exists()
    code = process.wait()
    return code if code >= 0 else 128 - code


signal.signal(signal.SIGPIPE, signal.SIG_DFL)
