"""Cancelling ends every process of a job and says so in its results."""

from __future__ import annotations

import getpass
import re
import socket
from pathlib import Path

import pytest

from jobs.cancel import main
from segdist.run.folder import RunFolder
from segdist.system.procfs import boot_id

from .conftest import Cluster, beating, write_run

pytestmark = pytest.mark.slow  # trains, or starts many processes


def test_a_cancelled_pipeline_ends_as_a_whole_and_says_who_did_it(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.start_hanging("r", "pipeline")
    capsys.readouterr()
    assert main(["r"]) == 0
    assert cluster.processes("r") == []
    assert not cluster.state("r").alive
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"job \d+: asked 1 process to stop \(TERM\), 5 processes in all", out[0])
    text = rf"cancelled by {getpass.getuser()} at \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(f"train: failed: {text}", out[1])
    assert [line.split(":")[0] for line in out[2:]] == [
        "evaluate fp32",
        "quantize",
        "evaluate int8",
        "report",
    ]
    assert all(re.search(f": skipped: train failed: {text}$", line) for line in out[2:])
    assert "asked to stop" in Path("r/train/logs/rank1.log").read_text()  # TERM came all the way down
    assert re.fullmatch(text, RunFolder("r").step("train").read_result().error or "")

    assert main(["r"]) == 0
    assert re.fullmatch(r"r: nothing to cancel, job \d+ has ended\n", capsys.readouterr().out)


def test_ranks_that_do_not_listen_are_killed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.start_hanging("r", how="deaf")
    capsys.readouterr()
    assert main(["r", "--grace", "0.5"]) == 0
    assert cluster.processes("r") == []
    out = capsys.readouterr().out
    assert "ended 5 processes that had not stopped after 0.5 s (KILL)" in out
    result = RunFolder("r").step("train").read_result()
    assert result.status == "failed"
    assert (result.error or "").startswith(f"cancelled by {getpass.getuser()} at ")


def test_a_job_that_was_gone_already_gets_its_results(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    write_run("r", socket.gethostname(), 2**22, "long ago")
    Path("r/.submitit/1").mkdir(parents=True)
    assert main(["r"]) == 0
    assert capsys.readouterr().out.startswith("job 77 was gone already\ntrain: failed: cancelled by ")
    assert main(["r"]) == 0
    assert capsys.readouterr().out == "r: nothing to cancel, job 77 has ended\n"


def test_a_job_of_another_host_whose_heartbeat_goes_on_is_cancelled_there(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run("r", "node7.example", 1, "")
    with beating(Path("r/.submitit/1")):
        assert main(["r"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: r: job 77 runs on node7.example, and its heartbeat goes on; cancel it there"
    assert not Path("r/train/result.json").exists()


def test_a_job_of_a_container_that_is_no_more_is_recorded_as_cancelled(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another host name; and of the same name, in another pid namespace of this kernel."""
    monkeypatch.setattr("segdist.run.lease_owner.WATCH_S", 0.3)
    for run, host, started in (
        ("a", "c1", f"{boot_id()} pid:[1]/5"),
        ("b", socket.gethostname(), f"{boot_id()} pid:[1]/5"),
    ):
        write_run(run, host, 1, started)
        Path(run, ".submitit/1").mkdir(parents=True)
        Path(run, ".submitit/1/beat").write_text("7\n")
        assert main([run]) == 0
        said = capsys.readouterr()
        assert said.out.startswith("job 77 was gone already\ntrain: failed: cancelled by ")
        assert "watching its heartbeat for up to 0.3 s" in said.err
        assert main([run]) == 0
        assert capsys.readouterr().out == f"{run}: nothing to cancel, job 77 has ended\n"


def test_what_is_no_run_is_refused(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["r"]) == 2
    assert capsys.readouterr().err == "error: r: is no folder; give the run folder that jobs.submit printed\n"
    Path("r").mkdir()
    assert main(["r"]) == 2
    assert capsys.readouterr().err == ("error: r/run.json: is missing; give a run folder that jobs.submit has made\n")
