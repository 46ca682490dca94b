"""pbsdsh and pbs_tmrsh: tasks through the job's mom."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from mom import address
from store import Store, key_of


class Tasks:
    """A connection to the mom of the job that this process belongs to."""

    def __init__(self) -> None:
        self.store = Store()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(address(self.store, key_of(os.environ["PBS_JOBID"])))
        self._file = self._socket.makefile("r")
        self.running: set[int] = set()
        self.codes: dict[int, int] = {}

    def hosts(self) -> list[str]:
        """The lines of the node file."""
        return Path(os.environ["PBS_NODEFILE"]).read_text().split()

    def spawn(self, host: str, argv: list[str]) -> None:
        """Start a task on a host."""
        node = list(dict.fromkeys(self.hosts())).index(host)
        self._send({"op": "spawn", "node": node, "argv": argv})
        while True:  # the end of an earlier task may come first
            answer = self._receive()
            if "exit" not in answer:
                self.running.add(answer["task"])
                return

    def signal_all(self, number: int) -> None:
        """Signal every running task."""
        for task in self.running:
            self._send({"op": "signal", "task": task, "signal": number})

    def wait(self) -> None:
        """Wait for the ends of all tasks."""
        while self.running:
            self._receive()

    def _receive(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            sys.exit(1)
        answer: dict[str, Any] = json.loads(line)
        if "exit" in answer:
            self.running.discard(answer["task"])
            self.codes[answer["task"]] = answer["exit"]
        return answer

    def _send(self, request: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(request).encode() + b"\n")


def pbsdsh(words: list[str]) -> int:
    """Once per line of the node file (``-u``: per host in Torque); 0 but for usage; forwards TERM.

    OpenPBS' has no ``-h``, and its getopt looks for options behind the program's name too, unless ``--`` comes first.
    """
    tasks = Tasks()
    lines = tasks.hosts()
    rest = list(words)
    if not tasks.store.torque:
        before = rest[: rest.index("--")] if "--" in rest else rest
        bad = [word for word in before if word.startswith("-") and word[1:2] not in "cnsvo"]
        if bad or (before[:1] != ["-n"] and any(word.startswith("-") for word in before)):
            print(f"pbsdsh: invalid option -- '{bad[0][1:2] if bad else before[0]}'\nUsage: pbsdsh", file=sys.stderr)
            return 1
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "-h":
            host = rest.pop(0)
            if host not in lines:
                print(f"pbsdsh: host {host} is not allocated to this job", file=sys.stderr)
                return 1
            lines = [host]
        elif word == "-n":  # a line; one out of range is taken for the first
            number = int(rest.pop(0))
            lines = [lines[number] if number < len(lines) else lines[0]]
        elif word == "-u" and tasks.store.torque:
            lines = list(dict.fromkeys(lines))
        elif word != "--":
            print(f"pbsdsh: invalid option -- '{word[1:]}'", file=sys.stderr)
            return 1
    signal.signal(signal.SIGTERM, lambda *_: tasks.signal_all(signal.SIGTERM))
    for host in lines:
        tasks.spawn(host, rest)
    tasks.wait()
    for task, code in tasks.codes.items():
        if code:
            print(f"pbsdsh: task {task} exit status {code}", file=sys.stderr)
    return 0


def pbs_tmrsh(words: list[str]) -> int:
    """HOST and argv, executed without a shell; the task's code; passes no signal on."""
    tasks = Tasks()
    if tasks.store.torque:
        print("pbs_tmrsh: command not found", file=sys.stderr)
        return 127
    host, *argv = words
    if host not in tasks.hosts():
        print(f'pbs_tmrsh: host "{host}" is not allocated to job', file=sys.stderr)
        return 254
    tasks.spawn(host, argv)
    tasks.wait()
    return next(iter(tasks.codes.values()))
