"""qsub: what it takes, what it refuses and with which exit code, and the id that it prints."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from store import Job, Store, key_of, schedule


class Refusal(Exception):
    """qsub's message and exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


_WITH_VALUE = "NqloejkWvrASpmMuhc"
_TORQUE_ONLY = "dFt"


def parse(words: list[str], torque: bool) -> tuple[dict[str, list[str]], list[str]]:
    """Options (letter → values, in order) and operands."""
    values = _WITH_VALUE + (_TORQUE_ONLY if torque else "J")
    options: dict[str, list[str]] = {}
    operands: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--version":
            options["version"] = []
        elif word.startswith("-") and len(word) > 1:
            letter, value = word[1], word[2:]
            if letter in "VzI":
                options[letter] = []
            elif letter not in values:
                raise Refusal(2, f"qsub: invalid option -- '{letter}'\nusage: qsub [-a date_time] ...")
            else:
                options.setdefault(letter, []).append(value or (rest.pop(0) if rest else ""))
        else:
            operands.append(word)
            if not torque and rest:  # options after the script are arguments there, and those are refused
                raise Refusal(2, "usage: qsub [-a date_time] ...")
    return options, operands


def directives(text: str) -> list[str]:
    """The words of the ``#PBS`` lines before the first command."""
    words: list[str] = []
    for line in text.splitlines():
        if line.startswith("#PBS"):
            words += shlex.split(line[4:])
        elif line.strip() and not line.startswith("#"):
            break
    return words


def main(words: list[str]) -> int:
    """The program."""
    store = Store()
    try:
        if "--version" in words:
            print("Version: 6.1.3\nCommit: 170ba4d" if store.torque else "pbs_version = 23.06.06")
            return 0
        if store.config["refuse"]:
            raise Refusal(*store.config["refuse"])
        if store.config["down"]:
            raise Refusal(162, "qsub: cannot connect to server pbshead (errno=15010)")
        with store.locked():
            number = store.next_number()
            job = make_job(store, number, words)
            print(submit(store, job))
            schedule(store)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.code
    return 0


def make_job(store: Store, number: int, words: list[str]) -> Job:
    """The job of a command line; raises Refusal."""
    given, operands = parse(words, store.torque)
    if len(operands) != 1:
        raise Refusal(2, "usage: qsub [-a date_time] ...")
    path = Path(operands[0])
    if not path.is_file():
        raise Refusal(1, "qsub: script file:: No such file or directory")
    text = path.read_text()
    try:
        own, _ = parse(directives(text), store.torque)
    except Refusal as refusal:
        raise Refusal(1, f"qsub: directive error: {refusal}") from refusal
    options = {**own, **given}
    for attribute in "lW":
        options[attribute] = own.get(attribute, []) + given.get(attribute, [])
    name = options.get("N", [path.name])[-1]
    if not re.fullmatch(r"\S{1,236}", name):
        raise Refusal(166 if store.torque else 2, "qsub: illegal -N value")
    resources = _resources(options["l"])
    attributes = dict(part.split("=", 1) for value in options["W"] for part in re.split(r",(?=\w+=)", value))
    job: Job = {
        "number": number, "index": None, "key": str(number), "name": name, "state": "Q", "substate": 10,
        "chunks": _chunks(store, resources), "scatter": store.torque or "scatter" in resources.get("place", ""),
        "walltime": _seconds(resources.get("walltime", store.config["default_walltime"])),
        "umask": attributes.get("umask", "077"), "depend": attributes.get("depend", ""), "stuck": False,
        "submit_arguments": " ".join(words),
        "variables": _variables(options.get("v", []), "V" in options), "workdir": str(Path.cwd()),
        "cwd": str(Path(options["d"][-1]).absolute()) if "d" in options else store.config["home"],
        "arguments": shlex.split(options["F"][-1]) if "F" in options else [],
        "out": _path(options, "o"), "err": _path(options, "e"), "join": options.get("j", ["n"])[-1],
        "keep": options.get("k", ["n"])[-1], "rerun": options.get("r", ["y"])[-1] == "y", "run_count": 0,
        "shell": options.get("S", ["/bin/bash"])[-1], "array": None, "nodes": [], "comment": "", "text": text,
        "resources": {**resources, "walltime": resources.get("walltime", store.config["default_walltime"])},
    }  # fmt: skip
    if "J" in options or "t" in options:
        job["array"] = _array(store, options.get("J", options.get("t", [""]))[-1])
    _check_dependencies(store, job)
    return {**job, "shown": _shown(store, job, options)}


def submit(store: Store, job: Job) -> str:
    """Put it into the queue; its id."""
    spool = store.folder / "spool" / f"{job['number']}.SC"
    spool.write_text(job.pop("text"))
    spool.chmod(0o700)
    if not job["array"]:
        store.save(job)
        return f"{job['number']}.{store.server}"
    job["key"] = f"{job['number']}[]"
    store.save(job)
    for index in job["array"]["indices"]:
        store.save({**job, "key": f"{job['number']}[{index}]", "index": index, "array": None})
    return f"{job['number']}[].{store.server}"


def _path(options: dict[str, list[str]], letter: str) -> str:
    return re.sub(r"^[\w.-]+:", "", options.get(letter, [""])[-1])


def _shown(store: Store, job: Job, options: dict[str, list[str]]) -> dict[str, str]:
    """The options as qstat prints them, with what the server chooses where they are not given."""
    values = {
        "queue": options.get("q", ["batch" if store.torque else "workq"])[-1], "Join_Path": job["join"],
        "Keep_Files": job["keep"], "Mail_Points": options.get("m", ["a"])[-1], "Priority": options.get("p", ["0"])[-1],
        "ctime": str(int(time.time())) if store.torque else time.ctime(),
    }  # fmt: skip
    for name, letter in (("Account_Name", "A"), ("Mail_Users", "M")):
        values |= {name: options[letter][-1]} if letter in options else {}
    for name, path, letter in (("Output_Path", job["out"], "o"), ("Error_Path", job["err"], "e")):
        default = f"{job['name']}.{letter}{job['number']}"
        values[name] = f"{store.server}:{Path(job['workdir'], path or default)}"
    return values


def _resources(values: list[str]) -> dict[str, str]:
    """``-l`` values: ``select=2:ncpus=1,walltime=…``; a comma inside a value does not occur here."""
    return dict(part.partition("=")[::2] for value in values for part in value.split(","))


def _chunks(store: Store, resources: dict[str, str]) -> list[dict[str, Any]]:
    if store.torque:  # -l select is ignored without a word
        spec = resources.get("nodes", "1")
        count, *words = spec.split(":")
        ppn = next((int(word[4:]) for word in words if word.startswith("ppn=")), 1)
        properties = [word for word in words if "=" not in word]
        known = {p for own in store.config["nodes"].values() for p in own}
        if not set(properties) <= known:
            raise Refusal(
                188, "qsub: submit error (Job exceeds queue resource limits MSG=cannot locate feasible nodes)"
            )
        return [{"cpus": ppn, "lines": ppn, "properties": properties}] * int(count)
    if "procs" in resources:
        raise Refusal(187, "qsub: Unknown resource: procs")
    if "nodes" in resources:
        count, *words = resources["nodes"].split(":")
        ppn = next((int(word[4:]) for word in words if word.startswith("ppn=")), 1)
        properties = [word for word in words if "=" not in word]
        for name in properties:
            if name not in store.config["boolean_resources"]:
                raise Refusal(187, f"qsub: Unknown resource: {name}")
        resources.setdefault("place", "scatter")
        resources.setdefault("select", f"{count}:ncpus={ppn}:mpiprocs={ppn}")
        return [{"cpus": ppn, "lines": ppn, "properties": properties}] * int(count)
    for name in resources:
        if name not in ("select", "place", "walltime", "ncpus", "mem"):
            raise Refusal(187, f"qsub: Unknown resource Resource_List.{name}")
    chunks: list[dict[str, Any]] = []
    for part in resources.get("select", "1:ncpus=1").split("+"):
        first, *rest = part.split(":")
        count = int(first) if first.isdecimal() else 1
        values = dict(word.partition("=")[::2] for word in (rest if first.isdecimal() else [first, *rest]))
        for name in values:
            if name not in ("ncpus", "mpiprocs", "mem", "ompthreads", "host", *store.config["boolean_resources"]):
                raise Refusal(187, f"qsub: Unknown resource: {name}")
        chunks += [{"cpus": int(values.get("ncpus", 1)), "lines": int(values.get("mpiprocs", 1)),
                    "properties": [v for v in values if v in store.config["boolean_resources"]]}] * count  # fmt: skip
    return chunks


def _seconds(text: str) -> int:
    total = 0
    for part in text.split(":"):
        if not part.isdecimal():
            raise Refusal(166, "qsub: Illegal attribute or resource value Resource_List.walltime")
        total = total * 60 + int(part)
    return total


def _variables(values: list[str], everything: bool) -> dict[str, str]:
    variables = dict(os.environ) if everything else {}
    for value in values:
        for part in filter(None, value.split(",")):
            name, given, text = part.partition("=")
            # -v doubles backslashes
            variables[name] = text.replace("\\", "\\\\") if given else os.environ.get(name, "")
    return variables


def _array(store: Store, text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\d+)-(\d+)(?:%(\d+))?", text)
    if store.torque:
        match = match or re.fullmatch(r"(\d+)()(?:%(\d+))?", text)
    if match is None or (not store.torque and int(match[1]) >= int(match[2])):
        if store.torque:
            raise Refusal(166, "qsub: Illegal attribute or resource value array_indices_submitted")
        raise Refusal(2, "qsub: illegal -J value")
    first, last = int(match[1]), int(match[2] or match[1])
    return {"indices": list(range(first, last + 1)), "throttle": int(match[3]) if match[3] else None}


def _check_dependencies(store: Store, job: Job) -> None:
    if not store.torque:  # afterok:99999 is accepted, and ends F 92 with no Exit_status
        if re.search(r":\d+\[\d", job["depend"]):
            raise Refusal(2, "qsub: illegal -W value\ncannot have dependancy on subjob or range")
        return
    for group in filter(None, job["depend"].split(",")):
        kind, *identifiers = group.split(":")
        for identifier in identifiers:
            other = store.load(key_of(identifier))
            if other is None:
                raise Refusal(208, "qsub: submit error (Invalid Job Dependency MSG=invalid job id)")
            if store.ended(other) and kind == "afterok" and other.get("exit_status") != 0:
                job["stuck"] = True
