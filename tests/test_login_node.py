"""A login node needs no torch: importing and using the torch-free rooms and jobs loads neither it nor numpy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .jobs.conftest import wait_until

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "PIL", "matplotlib", "intel_extension_for_pytorch", "neural_compressor")
ROOMS = ("segdist.config", "segdist.cli", "segdist.system", "segdist.run", "segdist.launch", "jobs")
WITH_NUMPY = ("segdist.data", "segdist.report")

IMPORT_ALL = """
import importlib, json, pkgutil, sys
names = []
for room in sys.argv[1:]:
    module = importlib.import_module(room)
    names.append(room)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{room}."):
        importlib.import_module(found.name)
        names.append(found.name)
print(json.dumps({"modules": names, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""

BLOCK = """
import importlib.abc, os, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["REFUSED"].split(","):
            raise ImportError(f"{name}: is not to be loaded on a login node")
        return None

if sys.orig_argv[1:3] == ["-m", os.environ.get("WATCHED", "")]:
    sys.meta_path.insert(0, Refuse())
"""

SBATCH = '#!/bin/sh\necho "Submitted batch job 11"\n'
QSUB = '#!/bin/sh\ncase "$1" in --version) echo "pbs_version = 23.06.06";; *) echo "11.head";; esac\n'
QSTAT = """#!/bin/sh
echo '{"Jobs": {"11.head": {"job_state": "F", "substate": 91, "Exit_status": 271}}}'
"""
EMPTY = "#!/bin/sh\nexit 0\n"


@pytest.mark.parametrize(("rooms", "allowed"), [(ROOMS, ()), ((*ROOMS, *WITH_NUMPY), ("numpy", "PIL", "matplotlib"))])
def test_no_module_of_the_torch_free_rooms_loads_what_a_login_node_lacks(
    rooms: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *rooms], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"jobs.submit", "jobs.clusters.pbs.executor", "segdist.launch.remote"} <= set(found["modules"])
    assert set(HEAVY) & set(found["loaded"]) <= set(allowed)


class LoginNode:
    """Runs a command in a process in which the heavy packages cannot be imported; the jobs it starts can."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(BLOCK)
        for name, text in (("sbatch", SBATCH), ("qsub", QSUB), ("qstat", QSTAT), ("squeue", EMPTY), ("scancel", EMPTY),
                           ("qdel", EMPTY)):  # fmt: skip
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(text)
            program.chmod(0o755)

    def run(self, module: str, *argv: str) -> str:
        """``python -m MODULE ARGUMENTS``; its output."""
        environ = {
            **os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "WATCHED": module,
            "REFUSED": ",".join(HEAVY), "PYTHONPATH": f"{self.folder / 'site'}:{ROOT}",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", module, *argv], env=environ, cwd=self.folder, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stdout + done.stderr
        assert "login node" not in done.stderr, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def node(tmp_path: Path) -> LoginNode:
    return LoginNode(tmp_path)


def test_the_heavy_packages_are_really_kept_from_the_command(node: LoginNode) -> None:
    (node.folder / "probe.py").write_text("import numpy\n")
    with pytest.raises(AssertionError, match="numpy: is not to be loaded on a login node"):
        node.run("probe")


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["local", "slurm", "pbs"])
def test_submit_status_logs_cancel_and_collect_need_no_torch(node: LoginNode, cluster: str) -> None:
    argv = ("train", "--cluster", cluster, "--run", "runs/one", "--epochs", "1", "--width", "4", "--workers", "0")
    assert "dry run: nothing was written" in node.run("jobs.submit", *argv, "--dry-run")
    assert "job:     " in node.run("jobs.submit", *argv)
    assert "train" in node.run("jobs.status", "runs")
    if cluster == "local":
        log = node.folder / "runs" / "one" / "train" / "logs" / "launch.log"
        wait_until(log.exists)
        node.run("jobs.logs", "runs/one")
        node.run("jobs.cancel", "runs/one", "--grace", "0.5")
        assert "train" in node.run("jobs.status", "runs", "--format", "json")
    else:
        node.run("jobs.cancel", "runs/one", "--grace", "0.1")
    for form in ("table", "csv", "json"):
        node.run("jobs.collect", "runs", "--format", form)
