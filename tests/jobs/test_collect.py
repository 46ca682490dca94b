"""Rows of many runs: whole ones, failed ones, half-copied and foreign ones."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.collect import main
from segdist.run.files import write_json
from segdist.run.folder import RunFolder
from segdist.run.result import Result, Status

NOW = "2026-01-31T12:00:00Z"


def write(
    run: Path, task: str, name: str, status: Status = "completed", error: str | None = None, **metrics: Any
) -> None:
    """A result of one step."""
    folder = RunFolder(run).step(task, name)
    machine = {"cpu": "Xeon", "threads_per_rank": 1}
    folder.write_result(Result(task, folder.name, status, NOW, NOW, 1.0, error, metrics=metrics, machine=machine))


def size(p50: float, traced: float | None = None) -> dict[str, float | None]:
    """What an evaluation says of one size."""
    values = {
        "loss": 0.4,
        "miou_pct": 55.123,
        "pixel_accuracy_pct": 91.5,
        "latency_ms_p50": p50,
        "latency_ms_p95": p50 * 1.1,
        "gmacs": 12.34,
    }
    return values | ({"traced_latency_ms_p50": traced} if traced else {})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole pipeline, a failed one, a training, a half-copied run and a foreign folder."""
    monkeypatch.chdir(tmp_path)
    net = {"model": "unet", "width": 16, "parameters_m": 1.94}
    whole = tmp_path / "runs" / "demo" / "unet"
    write(whole, "train", "train", **net, miou_pct=56.0)
    fp32 = {"256x512": size(100.0, 80.0), "512x1024": size(400.0, 310.0)}
    int8 = {"256x512": size(40.0), "512x1024": size(160.0)}
    write(whole, "evaluate", "fp32", **net, precision="fp32", size_mb=7.8, sizes=fp32)
    write(whole, "quantize", "quantize", **net, precision="int8", miou_pct=54.9)
    write(whole, "evaluate", "int8", **net, precision="int8", size_mb=2.1, sizes=int8)
    failed = tmp_path / "runs" / "hrnetv2_w18-20260131-120000-with-a-rather-long-name"
    net = {"model": "hrnetv2_w18", "width": 16, "parameters_m": 9.6}
    write(failed, "train", "train", **net)
    write(failed, "evaluate", "fp32", **net, precision="fp32", size_mb=39.0, sizes={"256x512": size(500.0)})
    write(failed, "quantize", "quantize", "failed", "MISSED the goal")
    write(failed, "evaluate", "int8", "skipped", "quantize failed: MISSED the goal")
    write(tmp_path / "runs" / "only-train", "train", "train", model="unet", width=64, miou_pct=60.25)
    half = RunFolder(tmp_path / "runs" / "half").step("evaluate", "fp32")
    write_json(half.config_json, {"run": "half"})
    half.result_json.write_text('{"schema')
    (tmp_path / "runs" / "foreign" / "train").mkdir(parents=True)
    (tmp_path / "runs" / "foreign" / "train" / "cat.png").write_bytes(b"")
    return tmp_path / "runs"


def test_the_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    shown = capsys.readouterr()
    assert shown.out == Path(__file__).with_name("collect_table.txt").read_text()
    assert max(map(len, shown.out.split("\n\n")[0].splitlines())) <= 120
    assert shown.err.splitlines() == [
        "note: runs/half: evaluate/fp32 unknown: runs/half/evaluate/fp32/result.json: cannot be read as JSON "
        "(Unterminated string starting at: line 1 column 2 (char 1)); copy the run folder again",
        "note: runs/hrnetv2_w18-20260131-120000-with-a-rather-long-name: evaluate/int8 skipped: "
        "quantize failed: MISSED the goal",
    ]


def test_json_has_types_and_the_speed_up_is_over_fp32_of_the_same_size(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs/demo", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["precision"], r["size"], r["speedup"], r["traced_latency_ms_p50"]) for r in rows] == [
        ("fp32", "256x512", 1.0, 80.0),
        ("fp32", "512x1024", 1.0, 310.0),
        ("int8", "256x512", 2.0, None),
        ("int8", "512x1024", 310 / 160, None),
    ]
    assert [(row["base"], row["base_ms"], row["speedup_over_eager"]) for row in rows[2:]] == [
        ("traced fp32", 80.0, 2.5),
        ("traced fp32", 310.0, 2.5),
    ]
    assert rows[2]["apart"] == "fp32"  # older results: timed in another evaluation of the run
    assert rows[0]["folder"] == "runs/demo/unet"
    assert (rows[0]["model"], rows[0]["size_mb"], rows[0]["parameters_m"]) == ("unet-16", 7.8, 1.94)


def test_csv_goes_to_a_file(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--format", "csv", "--out", "rows.csv"]) == 0
    assert capsys.readouterr().out == "csv: rows.csv\n"
    rows = list(csv.DictReader(io.StringIO(Path("rows.csv").read_text())))
    assert [row["status"] for row in rows] == [
        *["completed"] * 4,
        "unknown",
        "completed",
        "skipped",
        "completed",
    ]
    assert (rows[0]["latency_ms_p50"], rows[6]["latency_ms_p50"]) == ("100.0", "")
    assert rows[6]["model"] == "hrnetv2_w18"


def test_html_is_the_report_of_all_runs(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[Path]] = []

    def write_report(folders: Sequence[Path], out: Path) -> Path:
        asked.append(list(folders))
        return out

    monkeypatch.setitem(sys.modules, "segdist.report.page", types.SimpleNamespace(write_report=write_report))
    assert main(["runs/demo", "runs/only-train", "--format", "html", "--out", "page.html"]) == 0
    assert asked == [[Path("runs/demo/unet"), Path("runs/only-train")]]
    assert capsys.readouterr().out == "report: page.html\n"
    assert main(["runs/demo", "--format", "html"]) == 2
    assert capsys.readouterr().err == "error: --format html: needs a file; give --out report.html\n"


def test_nothing_found_names_the_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs/foreign"]) == 2
    assert capsys.readouterr().err == ("error: runs/foreign: holds no run; give a run folder, or one that holds runs\n")


def test_values_of_another_kind_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        Path("a"),
        "evaluate",
        "fp32",
        size_mb="big",
        sizes={"256x512": {"latency_ms_p50": None, "gmacs": True}},
    )
    write(Path("b"), "evaluate", "fp32", sizes=["256x512"])
    write(Path("c"), "evaluate", "fp32", sizes={"256x512": 3})
    write(Path("d"), "train", "train")
    values = json.loads(Path("d/train/result.json").read_text())
    write_json(Path("d/train/result.json"), values | {"metrics": None})
    write_json(Path("d/train/config.json"), {"net": "unet"})
    assert main(["a", "b", "c", "d", "--format", "json"]) == 0
    shown = capsys.readouterr()
    assert [(row["size"], row["size_mb"], row["gmacs"]) for row in json.loads(shown.out)] == [
        ("256x512", None, None),
        (None, None, None),
        (None, None, None),
        (None, None, None),
    ]
    assert "d/train/result.json: metrics is of another kind; copy the run folder again" in shown.err
    assert shown.err.count("evaluate/fp32 completed: result.json has no sizes") == 2


def test_a_step_for_each_size_is_shown_by_precision_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, p50 in (("fp32-512x1024", 400.0), ("fp32-1024x2048", 1600.0), ("int8-512x1024", 100.0)):
        precision, _, at = name.partition("-")
        write(
            Path("a"),
            "evaluate",
            name,
            precision=precision,
            sizes={at: size(p50, 0.75 * p50 if precision == "fp32" else None)},
        )
    write(Path("a"), "evaluate", "int8-1024x2048", "skipped", "quantize failed")
    write(Path("a"), "evaluate", "bf16-512x1024", "failed", "out of memory")
    assert main(["a", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["precision"], row["size"], row["speedup"], row["status"]) for row in rows] == [
        ("fp32", "512x1024", 1.0, "completed"),
        ("fp32", "1024x2048", 1.0, "completed"),
        ("bf16", "512x1024", None, "failed"),
        ("int8", "512x1024", 3.0, "completed"),
        ("int8", "1024x2048", None, "skipped"),
    ]


def test_slower_than_fp32_and_a_missed_goal_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    beside = {"fp32_latency_ms_p50": 50.0, "fp32_traced_latency_ms_p50": 39.5}
    goal = {"goal": "1 % relative", "goal_met": False, "goal_miou_pct": 55.5, "goal_fp32_miou_pct": 56.06}
    write(Path("a"), "evaluate", "int8", precision="int8", sizes={"128x256": size(40.9) | beside | goal})
    old = size(40.0) | {"latency_ms_p99": 60.0}
    write(Path("b"), "evaluate", "int8", precision="int8", sizes={"128x256": old})
    assert main(["a", "b"]) == 0
    shown = capsys.readouterr().out
    assert "0.97×" in shown
    assert "a int8 128x256: 0.97x: slower than traced fp32 (40.9 against 39.5 ms); goal 1 % relative MISSED: " in shown
    assert (
        "b int8 128x256: no speed-up is claimed: it has no latency of fp32 beside its own; "
        "no fp32 evaluation at 128x256; goal not judged: this evaluation does not say; evaluate again"
    ) in shown
    assert main(["a", "b", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["goal_met"] for row in rows] == [False, None]
    assert rows[1]["latency_ms_p99"] is None  # of 20 passes


def test_import_loads_no_numpy_and_no_torch() -> None:
    code = "import sys, jobs.collect, jobs.render.tensorboard\n"
    code += "print({'numpy', 'torch', 'tensorboardX'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
