"""Looking at a job from another shell: its logs, and its state in one table."""

from __future__ import annotations

import io
import json
import socket
import threading
from pathlib import Path

import pytest

from jobs import logs, status
from jobs.state.read import read_run
from segdist.run.files import append_json_line, write_json
from segdist.run.folder import RunFolder
from segdist.run.result import Result

from .conftest import Cluster, wait_until, write_run

pytestmark = pytest.mark.slow  # trains, or starts many processes


def test_the_log_of_the_step_at_work_of_any_rank(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.start_hanging("r")
    capsys.readouterr()
    assert logs.main(["r"]) == 0
    assert capsys.readouterr().out == "rank 0 of train begins\n"
    assert logs.main(["r", "--rank", "1"]) == 0
    assert capsys.readouterr().out == "rank 1 of train begins\n"
    assert logs.main(["r", "--rank", "7"]) == 2
    assert capsys.readouterr().err == (
        "error: --rank 7: train (running) has no log of that rank; "
        "in r/train/logs there is launch.log, rank0.log, rank1.log\n"
    )
    assert logs.main(["r", "--step", "polish"]) == 2
    assert capsys.readouterr().err == "error: --step polish: is no step of this run; give one of train\n"

    assert status.main(["r"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["run", "step", "state", "epoch", "val", "loss", "mIoU", "%", "elapsed"]
    assert table[2].split()[:6] == ["r", "train", "running", "1/10", "1.250", "31.5"]


def test_a_failed_run_shows_the_step_that_failed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("pipeline", "--run", "r", "--wait", stand_in="fp32=crash") == 1
    capsys.readouterr()
    assert logs.main(["r"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("rank 0 of fp32 begins\n")
    assert shown.out.endswith("RuntimeError: tensor of the wrong shape\n")
    assert shown.err == (
        "evaluate fp32 failed: exit code 1: rank 0 ended with 1; see r/evaluate/fp32/logs/launch.log\n"
    )
    assert logs.main(["r", "--step", "train"]) == 0
    assert capsys.readouterr().out == "rank 0 of train begins\nrank 0 of train ends\n"
    for asked in ("evaluate/fp32", "evaluate fp32", "fp32"):
        assert logs.main(["r", "--step", asked]) == 0
        assert "rank 0 of fp32 begins" in capsys.readouterr().out
    assert logs.main(["r", "--step", "int8"]) == 2
    assert "evaluate int8 (skipped) has no log of that rank" in capsys.readouterr().err


def test_following_goes_on_across_steps_until_the_job_ends(cluster: Cluster) -> None:
    cluster.start_hanging("r", "pipeline", how="gate")
    out, only = io.StringIO(), io.StringIO()
    threads = [
        threading.Thread(target=logs.follow, args=(Path("r"), out, 0)),
        threading.Thread(target=logs.follow, args=(Path("r"), only, 1), kwargs={"only": "train"}),
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: "rank 0 of train begins" in out.getvalue())
    Path("r/train/gate").write_text("")
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    lines = out.getvalue().splitlines()
    assert lines[:6] == [
        "── train ──",
        "rank 0 of train begins",
        "rank 0 of train ends",
        "── evaluate fp32 ──",
        "rank 0 of fp32 begins",
        "rank 0 of fp32 ends",
    ]
    assert lines[-2] == "── report ──"  # which has no ranks: its command's output is shown
    assert only.getvalue() == "── train ──\nrank 1 of train begins\nrank 1 of train ends\n"


def test_the_table_of_several_runs(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    train = RunFolder("runs/a").step("train")
    write_json(train.config_json, {"training": {"epochs": 12}})
    append_json_line(train.metrics_jsonl, {"epoch": 11, "val_loss": 0.91, "miou_pct": 52.3})
    append_json_line(train.metrics_jsonl, {"epoch": 12, "val_loss": 0.9, "miou_pct": 52.55})
    train.write_result(Result("train", "train", "completed", "2026-01-31T12:00:00Z", elapsed_s=3725.4))
    RunFolder("runs/a").step("quantize").write_result(
        Result(
            "quantize",
            "quantize",
            "failed",
            "2026-01-31T12:00:00Z",
            None,
            61,
            "Traceback:\n  …\nMISSED the goal",
        )
    )
    write_run("runs/b", "node7.example", 1, "")
    write_run("runs/c", socket.gethostname(), 2**22, "long ago")
    Path("runs/d").mkdir()
    Path("runs/d/run.json").write_text("{")
    broken = RunFolder("runs/e").step("train")
    broken.path.mkdir(parents=True)
    broken.result_json.write_text('{"schema_version": 1, "ta')

    assert status.main([]) == 0
    head, _, *rows = capsys.readouterr().out.replace(socket.gethostname(), "HERE").splitlines()
    assert head == "run  step      state      epoch  val loss  mIoU %  elapsed"
    assert rows == [
        "a    train     completed  12/12     0.900    52.5  1:02:05",
        "     quantize  failed         –         –       –  0:01:01  MISSED the goal",
        "b    train     unknown        –         –       –        –  "
        "job 77 on node7.example cannot be checked from here (HERE); run this on node7.example",
        "c    train     failed         –         –       –        –  "
        "the job is gone: job 77 on HERE ended without a result; see .submitit/1",
        "d    –         unknown        –         –       –        –  "
        "runs/d/run.json: cannot be read as JSON (Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)); copy the run folder again",
        "e    train     unknown        –         –       –        –  "
        "runs/e/train/result.json: cannot be read as JSON (Unterminated string starting at: "
        "line 1 column 23 (char 22)); copy the run folder again",
    ]


def test_the_same_as_json(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    train = RunFolder("runs/a").step("train")
    train.write_result(Result("train", "train", "failed", "2026-01-31T12:00:00Z", error="no disk"))
    append_json_line(train.metrics_jsonl, {"epoch": 2, "val_loss": 0.9, "miou_pct": 52.5})
    assert status.main(["runs/a", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "run": "a",
            "folder": "runs/a",
            "step": "train",
            "state": "failed",
            "epoch": 2,
            "epochs": None,
            "train_loss": None,
            "val_loss": 0.9,
            "miou_pct": 52.5,
            "elapsed_s": None,
            "eta_s": None,
            "error": "no disk",
            "job": None,
            "host": None,
            "nodes": None,
            "restarts": 0,
            "scheduler_state": None,
            "reason": None,
        }
    ]


def test_nothing_to_show_is_an_error(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([]) == 2
    assert capsys.readouterr().err == ("error: runs: is no folder; give a run folder, or one that holds runs\n")


def test_a_half_written_last_row_of_metrics_is_left_out(cluster: Cluster) -> None:
    train = RunFolder("r").step("train")
    train.write_result(Result("train", "train", "failed", "2026-01-31T12:00:00Z"))
    append_json_line(train.metrics_jsonl, {"epoch": 2})
    with train.metrics_jsonl.open("a") as file:
        file.write('{"epoch": 3, "va')
    assert read_run(Path("r")).steps[0].progress == {"epoch": 2}
