"""A user on the login node of a replayed cluster, with the real launcher and ranks without tensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.planning.steps import Commands
from jobs.state.model import RunState
from jobs.state.poll import Queue
from jobs.state.read import read_run
from jobs.submit import main

from .conftest import HERE, Lab, wait_until

TORQUE = pytest.mark.parametrize("lab", ["torque"], indirect=True)
PBSPRO = pytest.mark.parametrize("lab", ["pbspro"], indirect=True)
STAND_IN = str(HERE / "stand_in.py")
COMMANDS = Commands((sys.executable, STAND_IN, "launch"), (sys.executable, STAND_IN, "report"))


class Login:
    """A user on the login node, in a folder with odd characters."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.work / "my work's $HOME"
        self.folder.mkdir()

    def submit(self, *argv: str, how: dict[str, str] | None = None) -> Path:
        """Submit with tasks behaving as told; the run folder."""
        (self.folder / "stand_in.json").write_text(json.dumps(how or {}))
        assert main([argv[0], "--cluster", "pbs", "--run", "runs/one", *argv[1:]], COMMANDS) == 0
        return self.folder / "runs" / "one"

    def state(self, run: Path) -> RunState:
        """What is true now."""
        return read_run(run, queue=Queue(every_s=0.0))

    def states(self, run: Path) -> dict[str, str]:
        """Step → state."""
        return {step.step: step.state for step in self.state(run).steps}

    def said(self, run: Path) -> dict[str, tuple[str, str | None]]:
        """Step → state, and why."""
        return {step.step: (step.state, step.error) for step in self.state(run).steps}

    def wait_for(self, run: Path, **wanted: str) -> None:
        """Wait until those steps are in those states."""
        wait_until(lambda: wanted.items() <= self.states(run).items(), lambda: f"{wanted} in {self.said(run)}")

    def ranks(self, run: Path, step: str = "train") -> list[dict[str, Any]]:
        """What each rank of a step said about itself."""
        files = sorted((run / step / "logs").glob("rank?.log"))
        return [json.loads(file.read_text().splitlines()[0]) for file in files]

    def begun(self, run: Path, step: str = "train", ranks: int = 2, restart: int = 0) -> None:
        """Wait until every rank of a step is at work."""
        logs = run / step / "logs"
        wait_until(lambda: all((logs / f"begun{k}.{restart}").exists() for k in range(ranks)), lambda: str(logs))
