"""A real pipeline on a replayed Torque of two nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.submit import main

from .login import TORQUE, Login

SMALL = (
    "--width", "4", "--crop", "64x128", "--val-size", "64x128", "--batch", "4", "--epochs", "1", "--workers", "0",
    "--ipex", "off", "--precision", "fp32", "--check", "headers", "--sizes", "64x128", "--tuning-size", "64x128",
    "--latency-runs", "2", "--max-trials", "1", "--allow-miss", "--calibration-images", "4",
)  # fmt: skip


@TORQUE
@pytest.mark.slow
def test_a_real_pipeline_on_two_nodes(login: Login, streets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["pipeline", "--cluster", "pbs", "--run", "runs/real", "--nodes", "2", "--data", str(streets), *SMALL]
    assert main([*argv, "--wait"]) == 0, capsys.readouterr().out
    run = login.folder / "runs" / "real"
    assert set(login.states(run).values()) == {"completed"}
    result = json.loads((run / "train" / "result.json").read_text())
    assert result["machine"]["ranks"] == 2
    assert "int8" in (run / "report.html").read_text()
