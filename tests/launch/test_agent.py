"""The files through which the launcher and the agents of the nodes talk, and the agent's own decisions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.launch.agent_folder import AgentFolder, RankState, agent_plan, write_in_place
from segdist.launch.node_agent import find_node, rank_environ
from segdist.launch.outcome import RankSpec
from segdist.launch.remote import AGENT
from segdist.system.ranks import Ranks


@pytest.fixture
def folder(tmp_path: Path) -> AgentFolder:
    made = AgentFolder(tmp_path / "talk")
    made.create({"nodes": []}, ["n1", "n2"], [0, 1], [0, 1, 2])
    return made


def test_every_file_is_there_before_an_agent_starts_and_for_this_user_alone(folder: AgentFolder) -> None:
    names = {path.name for path in folder.path.iterdir()}
    assert names == {"plan.json", "hosts", "control", "beat", "node0.beat", "node1.beat", "rank0.state",
                     "rank1.state", "rank2.state"}  # fmt: skip
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.plan_json.stat().st_mode & 0o777 == 0o600
    assert folder.hosts.read_text() == "n1\nn2\n"
    folder.remove()
    assert not folder.path.exists()


def test_signals_are_read_in_order_and_a_half_written_one_is_left_out(folder: AgentFolder) -> None:
    folder.send(signal.SIGUSR1)
    folder.send(signal.SIGTERM)
    with folder.control.open("a") as file:
        file.write("SIGK")
    assert folder.read_control() == ["SIGUSR1", "SIGTERM"]


def test_the_start_and_the_end_of_a_rank_are_read_back(folder: AgentFolder) -> None:
    assert folder.read_state(0) == RankState()
    for rank in (0, 1):
        folder.append_state(rank, f"started n1 {100 + rank}")
        assert folder.read_state(rank) == RankState(started=True)
    folder.append_state(0, "exit 7 1000.250")
    folder.append_state(1, "signal 9 1000.500")
    assert folder.read_state(0) == RankState(True, exit_code=7, ended_at=1000.25)
    assert folder.read_state(1) == RankState(True, signal=9, ended_at=1000.5)
    folder.append_state(2, "exit 127 1000.000")
    assert folder.read_state(2) == RankState(False, exit_code=127, ended_at=1000.0)


def test_a_file_written_in_place_stays_the_same_file(folder: AgentFolder) -> None:
    before = folder.heartbeat.stat().st_ino
    write_in_place(folder.heartbeat, "123456\n")
    write_in_place(folder.heartbeat, "7\n")
    assert (folder.heartbeat.read_text(), folder.heartbeat.stat().st_ino) == ("7\n", before)


def test_the_plan_has_the_ranks_of_each_node(tmp_path: Path) -> None:
    specs = [
        RankSpec(Ranks(rank, 2, 0, 1, rank), ("python", "-V"), {"RANK": str(rank)}, (4,), tmp_path / f"rank{rank}.log")
        for rank in (0, 1)
    ]
    plan = json.loads(json.dumps(agent_plan(specs, ["n1", "n2", "spare"], {"PATH": "/bin"})))
    assert plan["environment"] == {"PATH": "/bin"}
    assert [node["host"] for node in plan["nodes"]] == ["n1", "n2", "spare"]
    assert [[rank["rank"] for rank in node["ranks"]] for node in plan["nodes"]] == [[0], [1], []]
    log = str(tmp_path / "rank1.log")
    assert plan["nodes"][1]["ranks"][0] == {
        "rank": 1, "argv": ["python", "-V"], "environment": {"RANK": "1"}, "cores": [4], "log": log,
    }  # fmt: skip


def test_an_agent_starts_in_a_bare_environment_with_the_standard_library_alone(folder: AgentFolder) -> None:
    folder.plan_json.write_text(json.dumps({"nodes": [{"host": "other", "ranks": []}], "grace": 1, "environment": {}}))
    done = subprocess.run(
        [AGENT[0], "-X", "importtime", *AGENT[1:], str(folder.path), "auto"],
        cwd="/",
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("is none of other, and no MPI rank is set; use --starter ssh")
    tops = {name.partition(".")[0] for name in imported - {"imported package"}}
    assert tops - set(sys.stdlib_module_names) == {"segdist", "org"}, "org: pickle looks for Jython's"
    assert "site" not in tops


def test_what_belongs_to_a_node_is_not_carried_to_another() -> None:
    launcher = {"TMPDIR": "/tmp/n1", "PBS_NODENUM": "0", "PATH": "/venv/bin"}
    here = {"PBS_NODENUM": "1", "PATH": "/bin", "HOSTNAME": "n2"}
    environ = rank_environ(launcher, {"RANK": "3"}, here)
    assert environ == {"PBS_NODENUM": "1", "HOSTNAME": "n2", "PATH": "/venv/bin", "RANK": "3"}


def test_an_agent_finds_its_node_by_name_or_by_mpi_rank() -> None:
    assert find_node(["n1", "n2.site"], "n2", {}) == 1
    assert find_node(["10.0.0.1", "10.0.0.2"], "n2", {"OMPI_COMM_WORLD_RANK": "1"}) == 1
    with pytest.raises(SystemExit, match="n9 is none of n1, n2"):
        find_node(["n1", "n2"], "n9", {})
