"""What status says about a run that somebody started by hand."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jobs import status
from jobs.state.read import read_run
from segdist.run.folder import RunFolder
from segdist.run.lease import acquire


def test_a_run_by_hand_is_running_while_its_holder_is_alive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = RunFolder(tmp_path / "run").step("train")
    step.path.mkdir(parents=True)
    step.config_json.write_text("{}")
    assert read_run(tmp_path / "run").steps[0].state == "unknown"
    lease = acquire(step, {})
    try:
        (one,) = read_run(tmp_path / "run").steps
        assert one.state == "running"
        assert (one.error or "").startswith(f"a run by hand (restart 0) on {socket.gethostname()}, pid ")
        assert status.main([str(tmp_path)]) == 0
        assert "running" in capsys.readouterr().out
    finally:
        lease.release()
    assert read_run(tmp_path / "run").steps[0].state == "unknown"
    (step.path / "holder.json").write_text("no lease")
    assert read_run(tmp_path / "run").steps[0].state == "unknown"
