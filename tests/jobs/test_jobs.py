"""Whole jobs: submitted, followed, run to their end by submitit, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.clusters import local
from jobs.record.job_folder import launcher_log
from jobs.record.run_json import read_spec
from jobs.runner.run import _run_step, _Stop, finalize_step
from segdist.run.folder import RunFolder
from segdist.run.lease import acquire
from segdist.run.result import Result, Status

from .conftest import COMMANDS, Cluster, wait_until

pytestmark = pytest.mark.slow  # trains, or starts many processes

NOW = "2026-01-31T12:00:00Z"


def in_a_shell_of_its_own(*argv: str) -> subprocess.Popen[str]:
    """``python -m jobs.submit`` as a user starts it, in a session that can be closed."""
    code = (
        "import signal, sys; from jobs.submit import main; from jobs.planning.steps import Commands\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        f"sys.exit(main([*sys.argv[1:], '--cluster', 'local'], {COMMANDS!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_pipeline_runs_its_steps_in_order(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("pipeline", "--run", "r", "--nodes", "2", "--wait") == 0
    out = capsys.readouterr().out
    assert f"on {socket.gethostname()}\n" in out
    for command in ("status r", "logs r --follow", "cancel r"):
        assert f"\n  python -m jobs.{command}\n" in out

    order = [
        "rank 0 of train begins",
        "rank 0 of fp32 ends",
        "rank 0 of quantize ends",
        "rank 0 of int8 ends",
    ]
    places = [out.index(line) for line in order]
    assert places == sorted(places)
    assert [out.count(line) for line in order] == [1, 1, 1, 1]
    assert out.count("── train ──") == 1
    assert [line.split(" after ")[0] for line in out.splitlines()[-5:]] == [
        "train: completed",
        "evaluate fp32: completed",
        "quantize: completed",
        "evaluate int8: completed",
        "report: completed",
    ]

    run = RunFolder("r")
    record = json.loads(run.run_json.read_text())
    assert [step["step"] for step in record["steps"]] == [
        "train",
        "evaluate/fp32",
        "quantize",
        "evaluate/int8",
        "report",
    ]
    assert record["jobs"][0]["host"] == socket.gethostname()
    assert record["jobs"][0]["id"] == str(record["jobs"][0]["pid"])
    assert set(record["versions"]) == {"segdist", "commit", "python"}
    assert record["steps"][0]["command"][2:] == (
        ["--nodes", "2", "--ranks-per-node", "1", "train", "--config", "r/train/config.json"]
    )
    assert json.loads(run.step("train").config_json.read_text())["run"] == "r"
    assert (run.path / record["jobs"][0]["submitit_folder"]).is_dir()
    assert run.report_html.read_text() == "r --format html --out r/report.html"
    assert not (run.path / "quantize" / "logs" / "rank1.log").exists()

    train = run.step("train").read_result()
    assert train.job == {"cluster": "local", "id": record["jobs"][0]["id"]}
    assert train.metrics["submitit"] == []  # ranks are found from the launcher's variables alone
    wait_until(lambda: not cluster.processes("r"))


def test_a_failed_step_skips_those_after_it_but_the_report(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.submit("pipeline", "--run", "r", "--wait", stand_in="train=fail") == 2
    skipped = "skipped: train failed: error: label 77 is not known"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:-1] == [
        "train: failed after 0:00:01: error: label 77 is not known",
        f"evaluate fp32: {skipped}",
        f"quantize: {skipped}",
        f"evaluate int8: {skipped}",
    ]
    assert lines[-1].startswith("report: completed")
    result = RunFolder("r").step("evaluate", "int8").read_result()
    assert (result.status, result.error) == ("skipped", "train failed: error: label 77 is not known")
    job_log = next(Path("r/.submitit").glob("*/*_0_log.out")).read_text()
    assert "evaluate int8: skipped, because train failed: error: label 77 is not known" in job_log


def test_a_missed_goal_skips_the_int8_evaluation(cluster: Cluster) -> None:
    assert cluster.submit("pipeline", "--run", "r", "--wait", stand_in="quantize=miss;report=fail") == 3
    assert cluster.states("r") == {
        "train": "completed",
        "evaluate/fp32": "completed",
        "quantize": "failed",
        "evaluate/int8": "skipped",
        "report": "failed",
    }
    assert RunFolder("r").step("quantize").read_result().error == "MISSED the goal by 2.1 points"


@pytest.mark.parametrize(
    ("behaviour", "code", "error"),
    [
        ("bad launch", 2, "exit code 2: error: no such interface"),
        ("late crash", 1, "exit code 1: rank 1 ended with 1"),
    ],
)
def test_a_step_that_ends_badly_has_a_failed_result(cluster: Cluster, behaviour: str, code: int, error: str) -> None:
    argv = ("train", "--run", "r", "--nodes", "2", "--wait")
    assert cluster.submit(*argv, stand_in=f"train={behaviour}") == code
    result = RunFolder("r").step("train").read_result()
    assert (result.status, result.error) == ("failed", error)


NONE, DONE, FAILED = None, "completed", "failed"


@pytest.mark.parametrize(
    ("left", "code", "stopped", "status", "error"),
    [
        (DONE, 0, None, DONE, None),
        (FAILED, 3, None, FAILED, "its own words"),
        (DONE, 1, None, FAILED, "exit code 1: last words"),
        (NONE, 1, None, FAILED, "exit code 1: last words"),
        (NONE, 0, None, FAILED, "exit code 0, but STEP/result.json: is missing; "
         "the step has not ended, or the copy is not whole"),
        (FAILED, 143, "cancelled by ann", FAILED, "cancelled by ann"),
        (NONE, 143, "cancelled by ann", FAILED, "cancelled by ann"),
        (DONE, 0, "cancelled by ann", DONE, None),
    ],
)  # fmt: skip
def test_a_steps_exit_code_is_held_against_its_result(
    tmp_path: Path, left: Status | None, code: int, stopped: str | None, status: str, error: str | None
) -> None:
    folder = RunFolder(tmp_path).step("train")
    folder.logs.mkdir(parents=True)
    launcher_log(folder).write_text("first words\nlast words\n\n")
    if left is not None:
        words = "its own words" if left == FAILED else None
        folder.write_result(Result("train", "train", left, NOW, NOW, 1.0, words, metrics={"miou_pct": 50.0}))
    said = finalize_step(folder, code, NOW, stopped, {"cluster": "local", "id": "7"})
    result = folder.read_result()
    assert said == result.error == (error and error.replace("STEP", str(folder.path)))
    assert result.status == status
    assert result.metrics == ({} if left is None else {"miou_pct": 50.0})


def test_a_second_job_keeps_the_record_of_the_first(cluster: Cluster) -> None:
    assert cluster.submit("train", "--run", "r", "--wait") == 0
    assert cluster.submit("evaluate", "--run", "r", "--wait") == 0
    record = json.loads(Path("r/run.json").read_text())
    assert record["task"] == "evaluate"
    assert [earlier["task"] for earlier in record["earlier"]] == ["train"]
    assert cluster.states("r") == {"train": "completed", "evaluate/fp32": "completed"}


def test_a_job_outlives_the_shell_it_was_submitted_from(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "train=gate")
    shell = in_a_shell_of_its_own("train", "--run", "r")
    assert shell.wait(30) == 0  # it does not wait for the job, and the job holds no pipe of the shell
    out, err = shell.communicate(timeout=5)
    assert "python -m jobs.cancel r" in out
    assert err == ""
    assert all(os.getsid(pid) != shell.pid for pid in cluster.processes("r"))
    wait_until(lambda: cluster.states("r") == {"train": "running"})
    Path("r/train/gate").write_text("")
    wait_until(lambda: cluster.states("r") == {"train": "completed"})


def test_ctrl_c_while_waiting_leaves_the_job_at_work(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN", "train=gate")
    shell = in_a_shell_of_its_own("train", "--run", "r", "--wait")
    assert shell.stdout is not None
    for line in shell.stdout:
        if line == "rank 0 of train begins\n":
            break
    os.killpg(shell.pid, signal.SIGINT)
    _, err = shell.communicate(timeout=10)
    assert shell.returncode == 130
    assert err == "\nno longer waiting; the job goes on. End it with python -m jobs.cancel r\n"
    assert cluster.states("r") == {"train": "running"}
    Path("r/train/gate").write_text("")
    wait_until(lambda: cluster.states("r") == {"train": "completed"})


def test_a_cluster_that_does_not_take_the_job_is_an_error(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local.sys, "executable", "/bin/false")
    assert cluster.submit("train", "--run", "r") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: submitit did not start the job: no output; see ")


def test_a_job_that_is_refused_a_step_leaves_the_files_of_the_one_at_work(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    step = RunFolder("r").step("train")
    assert cluster.submit("train", "--run", "r", "--wait", stand_in="train=bad launch") == 2
    step.result_json.unlink()
    held = acquire(step, {"SEGDIST_JOB_ID": "7", "SEGDIST_JOB_CLUSTER": "slurm"})
    code, error = _run_step(
        RunFolder("r"), read_spec(Path("r/run.json")), read_spec(Path("r/run.json")).steps[0],
        {"cluster": "slurm", "id": "8"}, _Stop(),
    )  # fmt: skip
    held.release()
    assert (code, error) == (2, "error: no such interface")
    assert "job 7 of slurm (restart 0)" in capsys.readouterr().out
    assert not step.result_json.exists()
