"""A real OpenPBS of three nodes, booted once for all tests that want it; elsewhere they are skipped with the reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from .server import Done, NoServerError, PbsServer, boot, until

SMALL = (
    "--width", "4", "--crop", "64x128", "--batch", "4", "--workers", "0", "--ipex", "off", "--precision", "fp32",
    "--check", "headers",
)  # fmt: skip
MEASURED = (
    "--sizes", "64x128", "--tuning-size", "64x128", "--latency-runs", "2", "--max-trials", "1", "--allow-miss",
    "--calibration-images", "4",
)  # fmt: skip


@pytest.fixture(scope="session")
def booted(streets: Path) -> Iterator[PbsServer]:
    """The cluster, with the data in /home/dev/streets."""
    try:
        server = boot(dict(os.environ))
    except NoServerError as error:
        pytest.skip(f"no PBS server here: {error}")
    try:
        shutil.copytree(streets, server.home / "streets")
        yield server
    finally:
        server.down()


@pytest.fixture
def server(booted: PbsServer) -> Iterator[PbsServer]:
    """The cluster, idle before and after the test."""
    yield booted
    booted.clear()


class User:
    """Commands as dev gives them on the head, in a folder of its own."""

    def __init__(self, server: PbsServer, name: str) -> None:
        self.server = server
        self.folder = server.folder(name)

    def python(self, *arguments: str, **environ: str) -> Done:
        """``python -m …`` in the folder."""
        return self.server.python(*arguments, cwd=self.folder, **environ)

    def submit(self, task: str, run: str, *options: str, small: Sequence[str] = SMALL, **environ: str) -> Path:
        """Submit to PBS (a machine with a Slurm has sbatch on PATH too); the run folder, as this machine sees it."""
        data = ("--data", "/home/dev/streets")
        done = self.python("jobs.submit", task, "--cluster", "pbs", "--run", run, *data, *small, *options, **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.server.outside(self.folder / run)

    def status(self, run: str) -> list[dict[str, Any]]:
        """What jobs.status says, a row for each step."""
        done = self.python("jobs.status", run, "--format", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def states(self, run: str) -> dict[str, str]:
        """Step → state."""
        return {row["step"]: row["state"] for row in self.status(run)}

    def wait_for(self, run: str, seconds: float = 120, **wanted: str) -> None:
        """Wait until those steps are in those states."""
        until(lambda: wanted.items() <= self.states(run).items(), seconds, lambda: self.status(run), every=1)


@pytest.fixture
def user(server: PbsServer, request: pytest.FixtureRequest) -> User:
    """dev, in a folder with the test's name."""
    return User(server, request.node.name.replace("[", "-").rstrip("]")[:60])
