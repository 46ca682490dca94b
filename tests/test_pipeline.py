"""The real thing from the command to the report: submitted jobs of the local cluster, at a small size."""

import json

import pytest

from segdist.run.folder import RunFolder
from segdist.run.result import read_metrics

pytestmark = pytest.mark.slow  # trains, or starts many processes

SMALL = ("--width", "4", "--epochs", "1", "--crop", "64x128", "--batch", "4", "--workers", "0", "--ipex", "off")


def test_train_on_four_nodes(streets, run_python, tmp_path):
    run = RunFolder(tmp_path / "four")
    options = ("--nodes", "4", "--cluster", "local", "--wait", "--run", run.path, "--data", streets)
    done = run_python("jobs.submit", "train", *options, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    result = run.step("train").read_result()
    assert (result.status, result.machine["ranks"]) == ("completed", 4)
    assert result.job["cluster"] == "local"
    assert len(read_metrics(run.step("train").metrics_jsonl)) == 1
    assert run.model_pt.exists()
    assert len(list(run.step("train").logs.glob("rank*.log"))) == 4
    status = run_python("jobs.status", run.path)
    assert status.returncode == 0
    assert "completed" in status.stdout
    assert "epoch 1/1" in run_python("jobs.logs", run.path).stdout


def test_a_pipeline_runs_through_to_the_report(streets, run_python, tmp_path):
    run = RunFolder(tmp_path / "all")
    options = ("--ranks-per-node", "2", "--cluster", "local", "--wait", "--run", run.path, "--data", streets)
    measured = (
        "--sizes",
        "64x128",
        "--tuning-size",
        "64x128",
        "--latency-runs",
        "3",
        "--max-trials",
        "1",
        "--allow-miss",
        "--calibration-images",
        "4",
    )
    done = run_python("jobs.submit", "pipeline", *options, *SMALL, *measured)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("train", "evaluate fp32", "quantize", "evaluate int8", "report"):
        assert f"{step}: completed" in done.stdout
    page = run.report_html.read_text()
    assert "int8" in page
    assert page.count("data:image/") >= 4
    collected = run_python("jobs.collect", tmp_path, "--format", "json")
    rows = json.loads(collected.stdout)
    assert [row["precision"] for row in rows if row["status"] == "completed" and row.get("precision")] == [
        "fp32",
        "int8",
    ]
    table = run_python("jobs.collect", tmp_path)
    assert "fp32" in table.stdout
    assert "int8" in table.stdout


def test_a_failed_step_stops_those_after_it_and_says_so(streets, run_python, tmp_path):
    run = RunFolder(tmp_path / "broken")
    options = ("--cluster", "local", "--wait", "--run", run.path, "--data", streets)
    done = run_python("jobs.submit", "pipeline", *options, *SMALL, "--lr", "1e30", "--calibration-images", "4")
    assert done.returncode == 1
    train = run.step("train").read_result()
    assert train.status == "failed"
    assert "--lr 1e+30 may be too large" in train.error
    for task, name in (("evaluate", "fp32"), ("quantize", None), ("evaluate", "int8")):
        skipped = run.step(task, name).read_result()
        assert skipped.status == "skipped"
        assert "train failed" in skipped.error
    assert run.report_html.exists()  # it shows what failed
    assert "may be too large" in run.report_html.read_text()
