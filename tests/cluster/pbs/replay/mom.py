"""The mother superior of one job: starts the script, serves pbsdsh and pbs_tmrsh, kills, and tells the server the end.

One process a job. Tasks on "other nodes" are its children too, in sessions of their own, with the bare environment that
a real mom gives them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mom_files import JobFiles
from store import Job, Store, schedule

_CLONE_NEWNS, _CLONE_NEWUTS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000000, 4096, 16384, 1 << 18


def address(store: Store, key: str) -> str:
    """The abstract socket of a job's mom."""
    return f"\0pbs-replay{store.folder}-{key}"


def enter_node(store: Store, node: str, first: bool) -> Callable[[], None]:
    """What makes a process one of that node: host name, names that resolve, and no node file but on the first."""
    libc = ctypes.CDLL(None, use_errno=True)
    hosts, aux = str(store.folder / "hosts").encode(), str(store.folder / "aux").encode()
    empty = str(store.folder / "empty").encode()

    def enter() -> None:
        if not store.config["namespaces"]:
            return
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        libc.mount(hosts, b"/etc/hosts", None, _MS_BIND, None)
        if not first:
            libc.mount(empty, aux, None, _MS_BIND, None)
        socket.sethostname(node)

    return enter


class Mom(JobFiles):
    """One job from its start to its end."""

    def __init__(self, store: Store, job: Job) -> None:
        super().__init__(store, job)
        self.tasks: dict[int, tuple[subprocess.Popen[bytes], int, socket.socket]] = {}
        self.top: subprocess.Popen[bytes] | None = None
        self.sessions: dict[int, int] = {}  # session → node index
        self.next_task = 2
        self.killing = ""
        self.kill_at = 0.0
        self.crashed: dict[str, float] = {}
        self.selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Start the script, watch until it is over, and report."""
        self.nodefile.parent.mkdir(exist_ok=True)
        lines = [node["name"] for node in self.job["nodes"] for _ in range(node["lines"])]
        self.nodefile.write_text("".join(f"{line}\n" for line in lines))
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(address(self.store, self.job["key"]))
        server.listen(64)
        self.selector.register(server, selectors.EVENT_READ, lambda: self.accept(server))
        code = self.start()
        while code is None:
            for key, _ in self.selector.select(0.05):
                key.data()
            self.reap()
            code = self.watch()
        self.kill(signal.SIGKILL)
        for process, _, _ in self.tasks.values():
            process.wait()
        self.finish(code)

    def start(self) -> int | None:
        """The login shell, which reads the name of the script; a code where it cannot be executed."""
        job = self.job
        script = self.store.folder / "spool" / f"{job['number']}.SC"
        environ = {**self.bare(), **job["variables"], **self.variables(0, 1), "PBS_NODEFILE": str(self.nodefile)}
        out, err = (self.live(name) or spool for name, spool in (("out", self.stdout), ("err", self.stderr)))
        umask = int(job["umask"], 8)
        enter = enter_node(self.store, self.unique[0], first=True)

        def before() -> None:
            os.umask(umask)
            enter()

        # The file is appended to: a job that runs again goes on in it.
        with out.open("ab") as stdout, (err if self.stderr != self.stdout else out).open("ab") as stderr:
            try:
                self.top = subprocess.Popen(
                    [job["shell"], "-l"], stdin=subprocess.PIPE, stdout=stdout, stderr=stderr,
                    env=environ, cwd=job["cwd"], start_new_session=True, preexec_fn=before,
                )  # fmt: skip
            except OSError:
                return 254
        words = " ".join(f"'{word}'" for word in job["arguments"])
        assert self.top.stdin is not None
        self.top.stdin.write(f"{script} {words}\n".encode())
        self.top.stdin.close()
        self.sessions[self.top.pid] = 0
        return None

    def watch(self) -> int | None:
        """Kill orders, the clock, lost nodes; the job's status once it is over."""
        assert self.top is not None
        job, config = self.job, self.store.config
        now = time.time()
        status = self.top.poll()
        if status is not None:
            return self.status_of(status)
        self.look_for_crashes(now)
        for node, since in self.crashed.items():
            if self.store.torque:  # waits for the node, and believes that all went well when the first one is back
                if node == self.unique[0] and not (self.store.folder / f"crash.{node}").exists():
                    self.kill(signal.SIGKILL)
                    self.top.wait()
                    return 0
                continue
            limit = config["node_fail_requeue"] if node == self.unique[0] else config["max_poll_downtime"]
            if now - since > limit:
                self.killing = "primary" if node == self.unique[0] else "sister"
                self.kill(signal.SIGKILL)
                self.top.wait()
                return -20 if self.killing == "primary" else -14
        if not self.killing:
            if (self.store.folder / f"kill.{job['key']}").exists():
                self.killing = "qdel"
            elif now - job["start"] > job["walltime"]:
                self.killing = "walltime"
                with self.stderr.open("ab") as file:
                    file.write(f"=>> PBS: job killed: walltime {int(now - job['start'])} exceeded limit\n".encode())
            if self.killing:
                self.kill_at = now + config["kill_delay"]
                self.kill(signal.SIGTERM, only_first=True)
        elif now > self.kill_at:
            self.kill(signal.SIGKILL)
        return None

    def status_of(self, status: int) -> int:
        """Exit_status as the server will show it."""
        torque = self.store.torque
        if self.killing == "qdel":
            return 271
        if self.killing == "walltime":
            return -11 if torque else -29
        if status < 0:
            return (128 if torque else 256) - status
        return status

    def kill(self, number: signal.Signals, only_first: bool = False, spare: int = 0) -> None:
        """Signal every process of the job's sessions (what called setsid has left them)."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == spare:
                continue
            try:
                text = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            context = int(text[text.rindex(")") + 2 :].split()[3])
            if context in self.sessions and not (only_first and self.sessions[context] != 0):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(entry.name), number)

    def look_for_crashes(self, now: float) -> None:
        """A node's power is gone: its processes vanish, and nobody is told."""
        for index, node in enumerate(self.unique):
            if node not in self.crashed and (self.store.folder / f"crash.{node}").exists():
                self.crashed[node] = now
                everything = self.sessions
                self.sessions = {s: n for s, n in everything.items() if n == index}
                if index == 0:  # it must not go on when what it has started is gone
                    os.kill(self.top_pid(), signal.SIGSTOP)
                self.kill(signal.SIGKILL, spare=self.top_pid())
                self.sessions = everything

    def top_pid(self) -> int:
        """The login shell's."""
        assert self.top is not None
        return self.top.pid

    def accept(self, server: socket.socket) -> None:
        """A pbsdsh or pbs_tmrsh has come."""
        client, _ = server.accept()
        file = client.makefile("r")
        self.selector.register(client, selectors.EVENT_READ, lambda: self.serve(client, file))

    def serve(self, client: socket.socket, file: Any) -> None:
        """One request a line; a client that goes leaves its tasks running."""
        line = file.readline()
        if not line:
            self.selector.unregister(client)
            return
        request = json.loads(line)
        if request["op"] == "spawn":
            client.sendall(json.dumps({"task": self.spawn(request["node"], request["argv"], client)}).encode() + b"\n")
        elif request["task"] in self.tasks:
            self.tasks[request["task"]][0].send_signal(request["signal"])

    def spawn(self, node: int, argv: list[str], client: socket.socket) -> int:
        """A task on a node: no exports, $HOME (Torque: the job's -d), a bare PATH, output into the job's file."""
        task, self.next_task = self.next_task, self.next_task + 1
        environ = {**self.bare(), **self.variables(node, task)}
        for name in ("NCPUS", "OMP_NUM_THREADS", "PBS_O_WORKDIR"):
            environ.pop(name, None)
        enter = enter_node(self.store, self.unique[node], first=node == 0)

        def before() -> None:
            os.umask(0o077)
            enter()

        cwd = self.job["cwd"] if self.store.torque else self.home
        with self.stdout.open("ab") as out, self.stderr.open("ab") as err:
            try:
                process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ,
                                           cwd=cwd, start_new_session=True, preexec_fn=before)  # fmt: skip
            except OSError as error:
                err.write(f"{argv[0]}: {error.strerror}\n".encode())
                process = subprocess.Popen(["/bin/false"], start_new_session=True)
        self.tasks[task] = (process, node, client)
        self.sessions[process.pid] = node
        return task

    def reap(self) -> None:
        """Tell clients of the ends of their tasks; of a crashed node nothing is heard."""
        for task, (process, node, client) in list(self.tasks.items()):
            if self.unique[node] in self.crashed or process.poll() is None:
                continue
            code = process.returncode if process.returncode >= 0 else -process.returncode
            with contextlib.suppress(OSError):
                client.sendall(json.dumps({"task": task, "exit": code}).encode() + b"\n")
            del self.tasks[task]

    def finish(self, code: int) -> None:
        """State E while the output is delivered, then the end, or the queue again."""
        job, store = self.job, self.store
        job["exit_status"] = code  # there already in state E
        with store.locked():
            job["state"] = "E"
            store.save(job)
        code = self.deliver(code)
        shutil.rmtree(self.nodefile, ignore_errors=True)
        self.nodefile.unlink(missing_ok=True)
        with store.locked():
            (store.folder / f"kill.{job['key']}").unlink(missing_ok=True)
            if code in (-14, -20) and job["rerun"]:
                for node in self.crashed:
                    (store.folder / f"crash.{node}").unlink(missing_ok=True)
                job |= {"state": "Q", "substate": 10, "nodes": [], "exit_status": -20}  # and stays in the queue so
                store.save(job)
            else:
                store.end(job, 91 if self.killing == "qdel" else 92 if code == 0 else 93, code)
            schedule(store)


def main(words: list[str]) -> int:
    """``mom KEY``."""
    store = Store()
    job = store.load(words[0])
    assert job is not None
    Mom(store, job).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
