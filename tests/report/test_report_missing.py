"""The report says what is missing or went wrong, where it stands, when the run folders are not whole."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .page_fixture import edit, report
from .run_fixture import HRNET, make_run


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("built") / "hrnet", HRNET)


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    """A whole run of HRNET, for the test to spoil."""
    return Path(shutil.copytree(built, tmp_path / "run"))


def test_failed_step_is_named_at_the_top_with_error_and_log(run: Path) -> None:
    for step in ("evaluate/fp32", "quantize", "evaluate/int8"):
        reason = {"status": "skipped", "error": "train failed", "metrics": {}}
        edit(run / step / "result.json", lambda result, reason=reason: result.update(reason))
    failure = {"status": "failed", "error": "\x1b[31mRuntimeError: loss is nan\x1b[0m", "log": "train/logs/rank1.log"}
    edit(run / "train" / "result.json", lambda result: result.update(failure, metrics={}))
    page = report(run)
    assert "4 things went wrong or are missing" in page.text
    assert "hrnetv2_w18, train: failed" in page.text
    assert "RuntimeError: loss is nan" in page.text
    assert "log: train/logs/rank1.log" in page.text
    assert "hrnetv2_w18, quantize: skipped train failed" in page.text
    assert page.text.index("things went wrong") < page.text.index("Results")
    assert "hrnetv2_w18: no result" in page.text
    assert "\x1b" not in page.source


def test_missed_goal_is_said(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", replace(HRNET, goal_met=False)))
    assert "hrnetv2_w18, quantize: failed MISSED the goal" in page.text
    assert "goal 1 % relative MISSED" in page.text
    assert "int8 61.2 % mIoU (fp32 61.5 %), 1.5× faster" in page.text


def test_missing_int8_is_said_where_it_would_stand(run: Path) -> None:
    shutil.rmtree(run / "evaluate" / "int8")
    shutil.rmtree(run / "quantize")
    edit(run / "run.json", lambda record: record.update(steps=record["steps"][:2]))
    page = report(run)
    assert "fp32 61.5 % mIoU, 190 ms an image; int8 was not evaluated" in page.text
    assert "int8 not evaluated in this run folder" in page.text
    assert "No quantization in this run folder." in page.text
    assert "hrnetv2_w18: no int8 predictions in this run folder." in page.text
    assert "went wrong" not in page.text  # nobody asked for it


def test_step_that_was_asked_for_and_left_nothing_is_a_problem(run: Path) -> None:
    shutil.rmtree(run / "evaluate" / "int8")
    page = report(run)
    assert "1 thing went wrong or is missing" in page.text
    assert "hrnetv2_w18, evaluate int8: missing" in page.text
    assert "is missing; the step has not ended, or the copy is not whole" in page.text


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("run.json", "cannot be read as JSON"),
        ("train/result.json", "cannot be read as JSON"),
        ("quantize/result.json", "cannot be read as JSON"),
        ("evaluate/fp32/result.json", "cannot be read as JSON"),
        ("evaluate/fp32/overlays/demo_000000_image.png", "cannot be read as a picture"),
        ("evaluate/int8/overlays/demo_000001_prediction.png", "cannot be read as a picture"),
    ],
)
def test_half_copied_file_is_named(run: Path, file: str, reason: str) -> None:
    _cut(run / file)
    page = report(run)
    assert "went wrong or" in page.text
    assert f"{file}: {reason}" in page.text
    assert page.faults == []


def test_half_copied_config_is_shown_as_not_recorded(run: Path) -> None:
    for step in ("train", "evaluate/fp32", "quantize"):
        _cut(run / step / "config.json")
    page = report(run)
    assert "hrnetv2_w18 fp32: An unrecorded number of timed runs, 1 thread" in page.text
    assert "goal of 60.9 % mIoU met" in page.text


def test_broken_row_of_the_metrics_is_named(run: Path) -> None:
    metrics = run / "train" / "metrics.jsonl"
    metrics.write_text("{\n" + metrics.read_text())
    page = report(run)
    assert "metrics.jsonl:1: is not JSON" in page.text
    assert "hrnetv2_w18: no epochs in train/metrics.jsonl" in page.text


def test_unfinished_last_row_is_left_out(run: Path) -> None:
    with (run / "train" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 13, "tr')
    assert "went wrong" not in report(run).text


def test_a_step_that_has_left_nothing_but_its_config(tmp_path: Path) -> None:
    (tmp_path / "run" / "train").mkdir(parents=True)
    (tmp_path / "run" / "train" / "config.json").write_text("{}")
    page = report(tmp_path / "run")
    assert "run, train: missing" in page.text
    assert "run: no result" in page.text
    assert "No overlays in these run folders." in page.text
    assert page.faults == []


@pytest.mark.parametrize("value", ["fast", {"256x512": 3}, {"256x512": {"miou_pct": "x", "iou_pct": []}}])
def test_metrics_of_another_shape_are_shown_as_missing(run: Path, value: Any) -> None:
    def spoil(result: dict[str, Any]) -> None:
        known = {"model": "hrnetv2_w18", "precision": "fp32"}
        result["metrics"] = dict.fromkeys(result["metrics"], value) | known

    for step in ("train", "evaluate/fp32", "quantize"):
        edit(run / step / "result.json", spoil)
    (run / "train" / "metrics.jsonl").write_text(
        json.dumps({"epoch": value, "train_loss": value, "miou_pct": value}) + "\n"
    )
    page = report(run)
    assert page.faults == []
    assert "int8 61.2 % mIoU" in page.text
