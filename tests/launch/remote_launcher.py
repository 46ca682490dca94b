"""``run_remote`` in a process of its own, with small scripts as the ranks of "other nodes"."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .alive import AlivePipe

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0

RANK = """
import json, os, signal, subprocess, sys, time
rank, out = int(os.environ["RANK"]), os.environ["OUT"]
signal.alarm(60)
alive = os.open(f"{out}/alive", os.O_WRONLY)  # held open until this process ends

def ready(*words):
    os.write(alive, (" ".join(map(str, (rank, *words))) + "\\n").encode())

def pause():
    while True:
        signal.pause()
"""

DRIVER = """
import os, sys
from pathlib import Path
from segdist.launch.outcome import RankSpec
from segdist.launch.remote import Timeouts
from segdist.launch.start_attempts import run_with_starters
from segdist.system.ranks import Ranks
nodes, per_node, starter = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
grace, folder = float(sys.argv[4]), Path(sys.argv[5])
command = (sys.executable, "-S", "-E", str(folder / "rank.py"))
world = nodes * per_node
specs = [
    RankSpec(Ranks(k, world, k % per_node, per_node, k // per_node), command,
             {"RANK": str(k), "OUT": str(folder)}, (), folder / f"rank{k}.log")
    for k in range(world)
]
hosts = [f"node{n}" for n in range(nodes)]
outcome = run_with_starters(specs, hosts, starter.split(","), grace, folder / "talk", Timeouts(20, 3, 2))
print("lost nodes:", *outcome.lost_nodes, file=sys.stderr)
print(outcome, file=sys.stderr)
sys.exit(outcome.exit_code)
"""


class RemoteLauncher:
    """One launch; its files are in ``folder``."""

    def __init__(self, folder: Path, script: str, nodes: int = 2, per_node: int = 2, starter: str = "local",
                 grace: float = 20.0, **environment: str) -> None:  # fmt: skip
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "rank.py").write_text(RANK + script)
        (folder / "driver.py").write_text(DRIVER)
        self.alive = AlivePipe(folder, DEADLINE)
        arguments = [str(nodes), str(per_node), starter, str(grace), str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "driver.py"), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr; nothing of the job may be left then."""
        out, err = self.process.communicate(timeout=DEADLINE)
        self.alive.wait_until_nobody_lives()
        return self.process.returncode, out, err

    def close(self) -> None:
        """End whatever the test left."""
        self.process.kill()
        self.process.communicate()
        self.alive.close()


def program(folder: Path, name: str, text: str) -> None:
    """An executable shell script."""
    (folder / name).write_text("#!/bin/bash\n" + text)
    (folder / name).chmod(0o755)


def path_with(folder: Path) -> str:
    """PATH with that folder first."""
    return f"{folder}:{os.environ['PATH']}"
