"""The programs behave as real servers were seen to: what the other tests rely on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


def test_a_job_starts_at_home_with_umask_077_and_a_login_environment(make_lab: Make) -> None:
    lab = make_lab("pbspro")
    number = lab.qsub('pwd >seen; umask >>seen; echo "${SECRET-unset}" >>seen; cat "$PBS_NODEFILE" >>seen')
    assert lab.wait(number)["exit_status"] == 0
    assert (lab.home / "seen").read_text().split() == [str(lab.home), "0077", "unset", lab.nodes[0]]


def test_only_openpbs_prints_json_and_only_torque_takes_d(lab) -> None:  # type: ignore[no-untyped-def]
    (lab.work / "x.sh").write_text("#!/bin/bash\npwd >here\n")
    done = lab.run("qsub", "-d", ".", "x.sh", check=False)
    if lab.torque:
        assert done.stdout == "1.pbshead\n"
        lab.wait("1")
        assert (lab.work / "here").exists()
        assert lab.run("qsub", "-l", "select=2:ncpus=1:mpiprocs=1", "x.sh").stdout == "2.pbshead\n"
        assert len(lab.wait("2")["nodes"]) == 1, "select is ignored in silence"
        assert "<exit_status>0</exit_status>" in lab.run("qstat", "-x", "1").stdout
    else:
        assert done.returncode == 2
        assert lab.run("qsub", "x.sh").stdout == "2.pbshead\n", "a rejected submission uses up a number"
        lab.wait("2")
        jobs = json.loads(lab.run("qstat", "-x", "-f", "-F", "json", "2").stdout)["Jobs"]
        assert jobs["2.pbshead"]["job_state"] == "F"
        assert jobs["2.pbshead"]["Exit_status"] == 0
        done = lab.run("qstat", "-f", "-F", "json", "2", check=False)
        assert (done.returncode, "Jobs" in done.stdout) == (35, False)


def test_one_unknown_id_spoils_the_exit_code_only(lab) -> None:  # type: ignore[no-untyped-def]
    number = lab.qsub("true")
    lab.wait(number)
    form = [] if lab.torque else ["-f", "-F", "json"]
    done = lab.run("qstat", "-x", *form, number, "99", check=False)
    assert done.returncode == 153
    assert f"{number}.pbshead" in done.stdout
    assert "99" in done.stderr


@pytest.mark.parametrize(
    ("text", "pbspro", "torque"),
    [("exit 3", 3, 3), ("kill -9 $$", 137, 137), ("kill -9 $PPID; sleep 9", 265, 137)],
)
def test_exit_codes(lab, text: str, pbspro: int, torque: int) -> None:  # type: ignore[no-untyped-def]
    assert lab.wait(lab.qsub(text))["exit_status"] == (torque if lab.torque else pbspro)


def test_pbsdsh_says_0_and_brings_nothing_along(make_lab: Make) -> None:
    lab = make_lab("pbspro")
    number = lab.qsub(
        "export X=1; cd /tmp\n"
        'pbsdsh -- /bin/sh -c \'echo "$PBS_NODENUM ${X-none} $PWD $PATH" >>"$HOME/seen"; exit 3\'; echo "rc $?"\n'
        f'pbs_tmrsh {lab.nodes[1]} /bin/sh -c "exit 5"; echo "rc $?"',
        "-l", "select=2:ncpus=1", "-l", "place=scatter", "-j", "oe",
    )  # fmt: skip
    assert lab.wait(number)["exit_status"] == 0
    seen = sorted((lab.home / "seen").read_text().splitlines())
    assert seen == [f"{k} none {lab.home} /bin:/usr/bin" for k in (0, 1)]
    out = (lab.work / f"job.sh.o{number}").read_text()
    assert [line for line in out.splitlines() if line.startswith("rc")] == ["rc 0", "rc 5"]


def test_chunks_share_a_node_unless_they_are_scattered(make_lab: Make) -> None:
    lab = make_lab("pbspro")
    together = lab.wait(lab.qsub("true", "-l", "select=2:ncpus=1"))
    apart = lab.wait(lab.qsub("true", "-l", "select=2:ncpus=1", "-l", "place=scatter"))
    assert len({node["name"] for node in together["nodes"]}) == 1
    assert len({node["name"] for node in apart["nodes"]}) == 2


def test_a_walltime_kill_ends_remote_tasks_and_spares_what_called_setsid(make_lab: Make) -> None:
    lab = make_lab("pbspro", kill_delay=1.0)
    number = lab.qsub(
        f"setsid sleep 3333 & pbs_tmrsh {lab.nodes[1]} /bin/sleep 4444",
        "-l", "select=2:ncpus=1", "-l", "place=scatter", "-l", "walltime=00:00:02",
    )  # fmt: skip
    assert lab.wait(number)["exit_status"] == -29
    assert not lab.processes("4444")
    assert lab.processes("3333")


def test_what_a_failed_job_means_to_those_behind_it(lab) -> None:  # type: ignore[no-untyped-def]
    first = lab.qsub("exit 1")
    lab.wait(first)
    late = lab.qsub("true", "-W", f"depend=afterok:{first}")
    done = lab.run("qsub", "-W", "depend=afterok:99999", str(lab.work / "job.sh"), check=False)
    if lab.torque:
        assert lab.wait(late, "H")["state"] == "H"
        assert done.returncode == 208
    else:
        job = lab.wait(late)
        assert (job["state"], job["substate"], "exit_status" in job) == ("F", 92, False)
        assert done.returncode == 0
