"""What a user does on a real OpenPBS, from submission to result."""

from __future__ import annotations

import json

import pytest

from .conftest import User

pytestmark = pytest.mark.slow


def test_a_training_over_two_nodes(user: User) -> None:
    run = user.submit("train", "run", "--nodes", "2", "--epochs", "1")
    user.wait_for("run", train="completed")
    result = json.loads((run / "train" / "result.json").read_text())
    assert len(set(result["machine"]["hosts"])) == 2
    logs = user.python("jobs.logs", "run")
    assert logs.returncode == 0
    assert "epoch" in logs.stdout
