"""A PBS of four nodes on this machine: the programs in ``bin/`` over a folder of their own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from submitit.core import plugins

from jobs.clusters.pbs import watcher

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DEADLINE = 60.0
PROBE = ["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", "mount --bind /etc/hosts /etc/hosts"]


class Lab:
    """One server with its nodes. ``config`` overrides what replay/store.py has as defaults."""

    def __init__(self, folder: Path, dialect: str, **config: Any) -> None:
        self.folder = folder
        self.dialect = dialect
        self.torque = dialect == "torque"
        self.home = folder / "home"
        for name in ("home", "jobs", "spool", "aux", "empty", "tmp", "work"):
            (folder / name).mkdir(parents=True)
        self.work = folder / "work"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for program in (HERE / "bin").iterdir():
            if not (self.torque and program.name == "pbs_tmrsh"):
                (self.bin / program.name).symlink_to(program)
        self.namespaces = namespaces = subprocess.run(PROBE, capture_output=True, check=False).returncode == 0
        # Without the right to make namespaces a node's name is an address of the loopback network.
        self.nodes = [f"n{k}" if namespaces else f"127.0.1.{k}" for k in (1, 2, 3, 4)]
        names = "".join(f"127.0.1.{k} n{k}\n" for k in (1, 2, 3, 4))
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (self.home / ".bash_profile").write_text(
            f"export PATH={self.bin}:$PATH PBS_REPLAY={folder} PBS_REPLAY_PYTHON={sys.executable}\n"
        )
        self._config = {
            "dialect": dialect, "nodes": {name: ["gold6128"] for name in self.nodes}, "namespaces": namespaces,
            "home": str(self.home), "bad_output_s": 1.0, "kill_delay": 3.0, **config,
        }  # fmt: skip
        self.set()

    def set(self, **config: Any) -> None:
        """Change how the server behaves."""
        self._config |= config
        (self.folder / "config.json").write_text(json.dumps(self._config))

    def environ(self) -> dict[str, str]:
        """What a shell on the login node has."""
        return {
            "PATH": f"{self.bin}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "PBS_REPLAY": str(self.folder), "PBS_REPLAY_PYTHON": sys.executable, "HOME": str(self.home),
        }  # fmt: skip

    def run(self, *words: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of the programs as a user on the login node."""
        done = subprocess.run(
            words, env=self.environ(), cwd=cwd or self.work, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, f"{words}: {done.returncode}: {done.stderr}"
        return done

    def qsub(self, text: str, *options: str, name: str = "job.sh") -> str:
        """Submit a script; its number."""
        script = self.work / name
        script.write_text(f"#!/bin/bash\n{text}\n")
        return self.run("qsub", *options, str(script)).stdout.strip().partition(".")[0]

    def job(self, key: str) -> dict[str, Any]:
        """The server's own record."""
        values: dict[str, Any] = json.loads((self.folder / "jobs" / f"{key}.json").read_text())
        return values

    def wait(self, key: str, states: str = "FCX", seconds: float = DEADLINE) -> dict[str, Any]:
        """Wait until a job is in one of these states."""
        wait_until(lambda: self.job(key)["state"] in states, lambda: f"job {key}: {self.job(key)}", seconds)
        return self.job(key)

    def end(self) -> None:
        """Kill whatever is left, and forget it."""
        marks = (str(self.folder).encode(),)
        for _ in range(2):  # a mom may be starting something
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and int(entry.name) != os.getpid():
                    try:
                        environ = (entry / "environ").read_bytes()
                    except OSError:
                        continue
                    if any(mark in environ for mark in marks):
                        try:
                            os.kill(int(entry.name), signal.SIGKILL)
                        except ProcessLookupError:
                            continue
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self, text: str) -> list[int]:
        """Living processes that have a text in their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text.encode() in words and state not in "ZX":
                found.append(int(entry.name))
        return found


def wait_until(
    condition: Callable[[], object], what: Callable[[], str] = lambda: "it", seconds: float = DEADLINE
) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what()} did not come true within {seconds} s"
        time.sleep(0.05)


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Makes labs, and ends them after the test. Their folder is short and has no odd characters."""
    labs: list[Lab] = []

    def make(dialect: str, **config: Any) -> Lab:
        labs.append(Lab(Path(tempfile.mkdtemp(prefix="pbs")).resolve(), dialect, **config))
        return labs[-1]

    yield make
    for lab in labs:
        lab.end()


@pytest.fixture(params=["pbspro", "torque"])
def lab(request: pytest.FixtureRequest, make_lab: Callable[..., Lab]) -> Lab:
    """A lab of each dialect."""
    return make_lab(request.param)


@pytest.fixture
def login_node(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """This process is a shell on the login node, with the plugin installed."""
    for name, value in lab.environ().items():
        monkeypatch.setenv(name, value)
    paths = [str(ROOT)]
    known = importlib.metadata.entry_points(group="submitit")
    if not any("jobs.clusters.pbs" in point.value for point in known):  # an older editable install: register it here
        info = lab.folder / "plugin" / "segdist_pbs-0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: segdist-pbs\nVersion: 0\n")
        points = (ROOT / "pyproject.toml").read_text().partition("entry-points.submitit]\n")[2].partition("\n\n")[0]
        (info / "entry_points.txt").write_text("[submitit]\n" + points.replace('"', ""))
        paths.append(str(info.parent))
        monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    caches = (plugins._get_plugins, plugins.get_executors, plugins.get_job_environments, watcher.server_dialect)
    for cached in caches:
        cached.cache_clear()
    yield lab
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def login(login_node: Lab, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A user in a folder of his own."""
    from .login import Login

    monkeypatch.setenv("VIRTUAL_ENV", "/opt/the venv")
    user = Login(login_node)
    monkeypatch.chdir(user.folder)
    return user
