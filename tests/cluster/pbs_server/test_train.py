"""What a user does on a real OpenPBS, from submission to result."""

from __future__ import annotations

import json
import sys

import pytest

from .conftest import MEASURED, SMALL, User
from .server import ROOT

pytestmark = pytest.mark.slow


def test_a_pipeline_over_two_nodes_to_its_report(user: User) -> None:
    images = ("--calibration-images", "2", "--tuning-images", "2")
    run = user.submit("pipeline", "run", "--nodes", "2", "--epochs", "2", *MEASURED, *images)
    user.wait_for("run", 180, report="completed")
    assert set(user.states("run").values()) == {"completed"}
    result = json.loads((run / "train" / "result.json").read_text())
    assert len(set(result["machine"]["hosts"])) == 2
    assert "int8" in (run / "report.html").read_text()
    logs = user.python("jobs.logs", "run", "--step", "train")
    assert logs.returncode == 0
    assert "epoch" in logs.stdout


def test_the_script_by_hand_over_two_nodes(user: User) -> None:
    words = " ".join(("--run", "hand", "--data", "/home/dev/streets", *SMALL, "--epochs", "2"))
    variables = f"PYTHON={sys.executable},PYTHONPATH={ROOT},ARGS={words}"
    options = ("-l", "select=2:ncpus=1:mpiprocs=1", "-v", variables)
    number = user.server.qsub(*options, str(ROOT / "pbs" / "openpbs" / "train.pbs"), cwd=user.folder)
    job = user.server.wait(number, seconds=120)
    output = "".join(path.read_text() for path in user.server.outside(user.folder).glob(f"*.o{number}"))
    assert job["Exit_status"] == 0, output
    result = json.loads((user.server.outside(user.folder) / "hand" / "train" / "result.json").read_text())
    assert (result["status"], result["machine"]["ranks"], result["job"]["id"]) == ("completed", 2, number)
    assert len(set(result["machine"]["hosts"])) == 2
    assert "ranks are started by pbs_tmrsh" in output


def test_status_logs_and_cancel_of_what_runs(user: User) -> None:
    run = user.submit("train", "run", "--nodes", "2", "--epochs", "2000")
    user.wait_for("run", train="running")
    assert user.server.jobs()
    assert user.python("jobs.logs", "run").returncode == 0
    done = user.python("jobs.cancel", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = user.status("run")
    assert row["state"] == "failed"
    assert "cancelled by" in row["error"]
    assert json.loads((run / "train" / "result.json").read_text())["error"] == row["error"]
    assert not user.server.jobs()
    for node in user.server.nodes:
        left = user.server.run("pgrep", "-af", "--", r"-m [s]egdist\.", host=node)
        assert left.returncode == 1, left.stdout
