"""Nodes that are lost under a run, on a replayed server, from submission to the end."""

from __future__ import annotations

import json

import pytest

from jobs import status
from segdist.run.exit_codes import TO_BE_CONTINUED

from .conftest import wait_until
from .login import PBSPRO, TORQUE, Login


def _crash(login: Login, index: int) -> str:
    """The power of a node of job 1 is gone, and its neighbours' connections break; its name."""
    node = str(login.lab.job("1")["nodes"][index]["name"])
    (login.lab.folder / f"crash.{node}").touch()
    (login.folder / "neighbour is gone").touch()
    return node


@PBSPRO
@pytest.mark.slow
@pytest.mark.faults
def test_a_run_that_loses_a_sister_goes_on_in_another_job(login: Login, capsys: pytest.CaptureFixture[str]) -> None:
    run = login.submit("train", "--nodes", "2", how={"train": "neighbour"})
    login.begun(run)
    node = _crash(login, 1)
    login.wait_for(run, train="completed")
    result = json.loads((run / "train" / "result.json").read_text())
    assert result["job"] == {"cluster": "pbs", "id": "1", "restart": "1"}
    (row,) = [json.loads(line) for line in (run / "train" / "lost_nodes.jsonl").read_text().splitlines()]
    assert (row["node"], row["job"], row["restart"]) == (node, "1", 0)
    launcher = (run / "train" / "logs" / "launch.log").read_text()
    assert f"{node} was lost (its node has not been heard of for 16 s); to be continued by the next job" in launcher
    assert login.lab.job("1")["exit_status"] == 0
    assert status.main([str(run)]) == 0
    assert "completed" in capsys.readouterr().out


@TORQUE
@pytest.mark.slow
@pytest.mark.faults
def test_status_names_the_lost_node_and_the_limit_of_restarts_holds(login: Login) -> None:
    run = login.submit("train", "--nodes", "2", "--max-restarts", "0", how={"train": "neighbour"})
    login.begun(run)
    node = _crash(login, 1)
    login.wait_for(run, train="failed")
    (step,) = login.state(run).steps
    assert f"{node} was lost" in (step.error or "")
    assert "restarted 0 times already; raise --max-restarts 0" in (step.error or "")
    assert login.lab.job("1")["exit_status"] not in (0, TO_BE_CONTINUED)


@PBSPRO
@pytest.mark.slow
@pytest.mark.faults
def test_a_job_that_lost_its_first_node_says_which(login: Login) -> None:
    login.lab.set(node_fail_requeue=1.0)
    run = login.submit("train", how={"train": "hang"})
    login.begun(run, ranks=1)
    node = _crash(login, 0)
    login.begun(run, ranks=1, restart=1)
    wait_until(lambda: "again" in (login.state(run).steps[0].error or ""))
    (step,) = login.state(run).steps
    assert step.state == "running"
    assert step.error == f"restart 1 (started again by the server, {node} was its first node before)"


@TORQUE
@pytest.mark.slow
@pytest.mark.faults
def test_torque_calls_a_lost_first_node_a_success_and_status_does_not(login: Login) -> None:
    run = login.submit("train", how={"train": "hang"})
    login.begun(run, ranks=1)
    node = _crash(login, 0)
    wait_until(lambda: not login.lab.processes(str(login.folder)))
    assert login.states(run) == {"train": "running"}, "all that the server says before the node is back"
    (login.lab.folder / f"crash.{node}").unlink()
    assert login.lab.wait("1")["exit_status"] == 0
    (step,) = login.state(run).steps
    assert step.state == "failed"
    assert "its script did not reach its end: its node was lost, or it was killed" in (step.error or "")
    assert login.submit("train") == run
    login.wait_for(run, train="completed")


@PBSPRO
def test_pbsdsh_alone_starts_the_ranks_of_several_lines_a_node(login: Login) -> None:
    options = ("--nodes", "2", "--ranks-per-node", "2", "--starter", "pbsdsh")
    run = login.submit("train", *options)
    login.wait_for(run, train="completed")
    assert [one["node"] for one in login.ranks(run)] == ["0", "0", "1", "1"]
