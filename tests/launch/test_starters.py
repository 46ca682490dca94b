"""The command lines that start agents on other nodes."""

from __future__ import annotations

import pytest

from segdist.config import ConfigError
from segdist.launch.starters import choose_starters, mpi_kind, mpirun_command, start_commands

JOB = {"PBS_JOBID": "2.pbshead"}
AGENT = ("/venv/bin/python", "/x y/agent.py", "/run $1/talk")


def on_path(*names: str):  # type: ignore[no-untyped-def]
    """A ``which`` that finds these programs."""
    return lambda name: f"/opt/{name}" if name in names else None


def test_the_first_starter_that_can_work_here_is_taken() -> None:
    assert choose_starters("auto", JOB, on_path("pbsdsh", "pbs_tmrsh", "ssh"))[0] == ("pbs_tmrsh", "pbsdsh", "ssh")
    assert choose_starters("auto", JOB, on_path("pbsdsh", "mpirun", "ssh"))[0] == ("pbsdsh", "mpirun", "ssh"), (
        "Torque has no pbs_tmrsh"
    )
    assert choose_starters("auto", {}, on_path("pbsdsh", "mpirun"))[0] == ("mpirun",), (
        "outside a job pbsdsh cannot work"
    )
    assert choose_starters("ssh,pbsdsh", JOB, on_path("pbsdsh", "ssh"))[0] == ("ssh", "pbsdsh")


def test_a_starter_that_is_asked_for_and_absent_is_refused() -> None:
    with pytest.raises(ConfigError, match="--starter mpirun: is not on PATH; give another one, or auto"):
        choose_starters("mpirun", JOB, on_path("ssh"))
    with pytest.raises(ConfigError, match="--starter pbsdsh: works inside a PBS job only"):
        choose_starters("pbsdsh", {}, on_path("pbsdsh"))
    with pytest.raises(ConfigError, match="--starter auto: nothing can start ranks on other nodes"):
        choose_starters("auto", JOB, on_path())
    with pytest.raises(ConfigError, match="--starter rsh: is not known; give one of auto, local, pbs_tmrsh"):
        choose_starters("rsh", JOB, on_path())


def test_only_ssh_goes_through_a_shell_and_only_its_command_is_quoted() -> None:
    hosts = ["n1", "n2", "n3"]
    tmrsh = start_commands("pbs_tmrsh", hosts, [0, 2], AGENT, "hosts")
    assert [start.argv for start in tmrsh] == [
        ("pbs_tmrsh", "n1", *AGENT, "0"),
        ("pbs_tmrsh", "n3", *AGENT, "2"),
    ]
    (pbsdsh,) = start_commands("pbsdsh", hosts, [1], AGENT, "hosts")
    assert pbsdsh.argv == ("pbsdsh", "-h", "n2", *AGENT, "1")
    (line,) = start_commands("pbsdsh", hosts, [1], AGENT, "hosts", {"n1": 0, "n2": 2, "n3": 4})
    assert line.argv == ("pbsdsh", "-n", "2", "--", *AGENT, "1"), "OpenPBS takes no -h, and -- keeps options apart"
    (ssh,) = start_commands("ssh", hosts, [1], AGENT, "hosts")
    assert ssh.argv[-2:] == ("n2", "/venv/bin/python '/x y/agent.py' '/run $1/talk' 1 --stdin")
    assert ssh.stdin
    assert "BatchMode=yes" in ssh.argv, "a question for a password would hang the job"


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("Intel(R) MPI Library for Linux* OS, Version 2021.11", ("-f", "hosts", "-ppn", "1", "-n", "2")),
        ("HYDRA build details:\n    Version: 4.0.2", ("-f", "hosts", "-ppn", "1", "-n", "2")),
        ("mpirun (Open MPI) 4.1.4", ("--hostfile", "hosts", "--map-by", "ppr:1:node", "-n", "2")),
    ],
)
def test_mpirun_starts_one_agent_on_each_node(version: str, options: tuple[str, ...]) -> None:
    start = mpirun_command([0, 1], AGENT, "hosts", on_path("mpirun"), lambda _: version)
    assert start.nodes == (0, 1)
    assert start.argv[0] == "/opt/mpirun"
    assert start.argv[1 : 1 + len(options)] == options
    assert start.argv[-4:] == (*AGENT, "auto")


def test_an_unknown_mpi_is_refused() -> None:
    with pytest.raises(ConfigError, match="says 'mpiexec of another kind'"):
        mpi_kind("mpiexec of another kind\n")
