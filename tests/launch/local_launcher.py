"""The launcher in a process of its own, with small scripts as the ranks of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from segdist.run.folder import RunFolder

from .alive import AlivePipe

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 15.0
"""Seconds after which something that should have happened counts as not happening."""

PRELUDE = """
import json, os, signal, subprocess, sys
from pathlib import Path
signal.alarm(60)  # whatever goes wrong, no test leaves a process behind for long
rank, step = int(os.environ["RANK"]), Path(sys.argv[1])

def ready(*words):
    os.write(alive, (" ".join(map(str, ("rank", rank, *words))) + "\\n").encode())

def wait_for_go(number):
    open(step / f"go{number}").readline()

def write_result(status="completed"):
    result = dict(task="train", name="train", status=status, started_at="2026-01-01T00:00:00Z")
    (step / "new.json").write_text(json.dumps({**result, "schema_version": 1}))
    os.replace(step / "new.json", step / "result.json")

def pause():
    while True:
        signal.pause()

alive = os.open(step / "alive", os.O_WRONLY)  # held open until this process ends
"""


class Launcher:
    """:func:`segdist.launch.step.launch` in a process of its own, with a script as the ranks' program."""

    def __init__(
        self,
        folder: Path,
        script: str,
        nodes: int = 1,
        ranks_per_node: int = 2,
        grace: float = 10.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.step = RunFolder(folder / "run").step("train")
        self.step.path.mkdir(parents=True, exist_ok=True)
        for name in ("go0", "go1"):
            (self.step.path / name).unlink(missing_ok=True)
            os.mkfifo(self.step.path / name)
        self._go = [os.open(self.step.path / name, os.O_RDWR) for name in ("go0", "go1")]
        (folder / "rank.py").write_text(PRELUDE + script)
        driver = (
            "import os, sys\n"
            "from segdist.launch.plan import RankLayout, choose_master_port, plan_ranks\n"
            "from segdist.launch.step import launch\n"
            "from segdist.run.folder import RunFolder\n"
            "from segdist.system.affinity import physical_cores\n"
            f"step = RunFolder({str(folder / 'run')!r}).step('train')\n"
            f"command = [sys.executable, '-S', {str(folder / 'rank.py')!r}, str(step.path)]\n"
            f"specs = plan_ranks(RankLayout({nodes}, {ranks_per_node}), command, step,"
            " physical_cores(os.sched_getaffinity(0)), choose_master_port({}))\n"
            f"sys.exit(launch(specs, {grace}, step))"
        )
        self.alive = AlivePipe(self.step.path, DEADLINE)
        self.process = subprocess.Popen(
            [sys.executable, "-c", driver],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()
        self.alive.close()
        for descriptor in self._go:
            os.close(descriptor)

    def go(self, number: int) -> None:
        """Let the rank that waits for this number go on."""
        os.write(self._go[number], b"go\n")

    def end(self) -> tuple[int, str, str]:
        """Wait for the launcher: exit code, stdout, stderr. Nothing of the job may be left then."""
        out, err = self.process.communicate(timeout=DEADLINE)
        self.alive.wait_until_nobody_lives()
        return self.process.returncode, (out or b"").decode(), err.decode()


def pid_of(lines: list[str], rank: int) -> int:
    """From ``rank 1 pid 123``."""
    return next(int(line.split()[3]) for line in lines if line.startswith(f"rank {rank} pid "))


def last_line(text: str) -> str:
    """The last line of an output."""
    return text.splitlines()[-1]
