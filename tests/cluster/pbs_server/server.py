"""A real OpenPBS on this machine: the lab that SEGDIST_PBS_LAB names, and commands as its user ``dev`` gives them.

The lab's head and nodes are namespaces with host names, processes and a /tmp of their own; /home/dev is shared by all.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
VARIABLE = "SEGDIST_PBS_LAB"
NODES = 3
IMPOSSIBLE = 3
"""The lab's exit code where this machine cannot run one."""
ENDED = ("F", "X")
Done = subprocess.CompletedProcess[str]


class NoServerError(Exception):
    """No PBS can be had here; the text says why."""


def until(
    condition: Callable[[], object], seconds: float, what: Callable[[], object] | str, every: float = 0.3
) -> None:
    """Wait until a condition holds, or fail and say ``what`` there is instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what() if callable(what) else what}"
        time.sleep(every)


class PbsServer:
    """A booted lab of a head and nodes n1, n2, …"""

    def __init__(self, lab: Path, nodes: int = NODES, flavour: str = "openpbs") -> None:
        self.program = lab / "lab"
        self.flavour = flavour
        self.nodes = [f"n{k + 1}" for k in range(nodes)]
        self.root = Path(tempfile.mkdtemp(prefix="pbslab"))
        binds = [ROOT, *([] if Path(sys.prefix).is_relative_to(ROOT) else [Path(sys.prefix).parent])]
        words = ["up", flavour, "--nodes", str(nodes), "--root", str(self.root)]
        done = self._lab(*words, *(word for path in binds for word in ("--bind", str(path))), timeout=200)
        if done.returncode:
            shutil.rmtree(self.root, ignore_errors=True)
            if done.returncode == IMPOSSIBLE:
                raise NoServerError(done.stderr.strip())
            raise AssertionError(f"{self.program} {' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}")
        self.prefix = Path("/opt/segdist-lab") / flavour / "bin"

    @property
    def home(self) -> Path:
        """/home/dev, from outside."""
        return self.root / "home" / "dev"

    def outside(self, path: Path | str) -> Path:
        """Where a path below /home/dev is on this machine."""
        return self.home / Path(path).relative_to("/home/dev")

    def folder(self, name: str) -> Path:
        """A new folder of dev's; its name inside."""
        path = self.home / name
        path.mkdir()
        os.chown(path, 2000, 2000)
        return Path("/home/dev") / name

    def write(self, path: Path, text: str) -> None:
        """A file of dev's, executable; the path is one inside."""
        outside = self.outside(path)
        outside.write_text(text)
        outside.chmod(0o755)
        os.chown(outside, 2000, 2000)

    def down(self) -> None:
        """End the lab and all that runs in it."""
        done = self._lab("down", str(self.root), "--rm", timeout=60)
        assert done.returncode == 0, done.stderr

    def run(
        self, *words: str, host: str = "head", cwd: Path | str = "/home/dev", user: str = "dev", **environ: str
    ) -> Done:
        """Run a command on the head (or a node) as dev, to its end."""
        variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environ}
        setting = ["env", *(f"{name}={value}" for name, value in variables.items())]
        where = ["run", str(self.root), host, "--user", user, "--cwd", str(cwd)]
        return self._lab(*where, "--", *setting, *words, timeout=240)

    def python(self, *arguments: str, cwd: Path | str = "/home/dev", **environ: str) -> Done:
        """``python -m …`` on the head."""
        return self.run(sys.executable, "-m", *arguments, cwd=cwd, **environ)

    def output(self, *words: str, **more: Any) -> str:
        """What a command prints, which must succeed."""
        done = self.run(*words, **more)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def qsub(self, *words: str, **more: Any) -> str:
        """Submit; the job's number, ``7`` or ``7[]``."""
        return self.output("qsub", *words, **more).strip().partition(".")[0]

    def job(self, number: str) -> dict[str, Any]:
        """The server's own record of a job; empty where it gives none."""
        done = self.run("qstat", "-x", "-f", "-F", "json", number)
        if done.returncode:
            return {}
        values: dict[str, Any] = next(iter(json.loads(done.stdout)["Jobs"].values()))
        return values

    def wait(self, number: str, states: tuple[str, ...] = ENDED, seconds: float = 60) -> dict[str, Any]:
        """Wait until a job is in one of these states; the server's record of it."""
        until(lambda: self.job(number).get("job_state") in states, seconds, lambda: self.job(number))
        return self.job(number)

    def jobs(self) -> list[str]:
        """The ids of all jobs that have not ended."""
        words = [line.split() for line in self.output("qstat").splitlines()]
        return [line[0] for line in words if line and line[0][0].isdigit()]

    def poweroff(self, node: str, silent: bool = False) -> None:
        """Crash a node; ``silent`` cuts its network first, as a power cut does."""
        self._must("poweroff", str(self.root), node, *(["--silent"] if silent else []))

    def poweron(self, node: str) -> None:
        """Boot a crashed node, and wait until the server counts on it."""
        self._must("poweron", str(self.root), node)
        until(lambda: self.states().get(node) == "free", 90, self.states)

    def server(self, action: str) -> None:
        """Stop or start the server's daemon alone; jobs go on."""
        self._must("server", action, str(self.root))
        if action == "start":
            until(lambda: self.run("qstat", "-B").returncode == 0, 60, "the server answers")

    def states(self) -> dict[str, str]:
        """Node → the server's word for its state; empty for one that is off."""
        lines = [line.split("\t") for line in self._lab("status", str(self.root)).stdout.splitlines()]
        return {line[0]: line[3] if len(line) > 3 else "" for line in lines}

    def clear(self) -> None:
        """Delete all jobs, and turn on what is off: the next test finds an idle cluster."""
        off = [node for node in self.nodes if not self.states().get(node)]
        for node in off:
            self.poweron(node)
        if left := self.jobs():
            self.run("qdel", "-W", "force", *reversed(left), user="root")
        until(lambda: not self.jobs(), 60, self.jobs)
        until(lambda: all(self.states().get(node) == "free" for node in self.nodes), 60, self.states)

    def _must(self, *words: str) -> None:
        done = self._lab(*words, timeout=120)
        assert done.returncode == 0, f"lab {' '.join(words)}: {done.stderr}"

    def _lab(self, *words: str, timeout: float = 60) -> Done:
        command = [str(self.program), *words]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )


def boot(environ: dict[str, str], nodes: int = NODES) -> PbsServer:
    """The lab that the environment names.

    Raises:
        NoServerError: where it names none, or this machine cannot run one.
    """
    lab = environ.get(VARIABLE, "")
    if not lab:
        raise NoServerError(f"{VARIABLE} names no lab")
    if not (Path(lab) / "lab").exists():
        raise NoServerError(f"{VARIABLE}={lab}: has no program lab")
    return PbsServer(Path(lab).resolve(), nodes)
