"""Event files hold what metrics.jsonl and result.json say, read back record by record."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from jobs.collect import main
from segdist.run.files import append_json_line, write_json
from segdist.run.folder import RunFolder
from segdist.run.result import Result


def scalars(folder: Path) -> list[tuple[str, float, int, float]]:
    """(tag, value, step, time) of the one event file in a folder (TFRecord: length, its CRC, data, its CRC)."""
    (file,) = folder.glob("events.out.tfevents.*")
    data, found, at = file.read_bytes(), [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + length])
        found += [(one.tag, round(one.simple_value, 4), event.step, event.wall_time) for one in event.summary.value]
        at += 12 + length + 4
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of two epochs and an evaluation."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("runs/a"))
    train, evaluate = run.step("train"), run.step("evaluate", "fp32")
    began, ended = "2026-01-31T12:00:00Z", "2026-01-31T12:10:00Z"
    train.write_result(Result("train", "train", "completed", began, ended))
    for epoch in (1, 2):
        row: dict[str, Any] = {"epoch": epoch, "step": 8 * epoch, "miou_pct": 10.0 * epoch, "elapsed_s": 60.0 * epoch}
        append_json_line(train.metrics_jsonl, row | {"iou_pct": {"road": 90.0, "rider": None}})
    sizes = {"64x128": {"miou_pct": 21.5, "seconds": {"net": 3.0}}}
    evaluate.write_result(Result("evaluate", "fp32", "completed", began, ended, metrics={"sizes": sizes}))
    return run


def test_epochs_are_scalars_by_step_and_time(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--format", "tensorboard", "--out", "events"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    noon = 1769860800.0
    assert scalars(Path("events/a/train")) == [
        ("epoch", 1.0, 8, noon + 60),
        ("miou_pct", 10.0, 8, noon + 60),
        ("iou_pct/road", 90.0, 8, noon + 60),
        ("epoch", 2.0, 16, noon + 120),
        ("miou_pct", 20.0, 16, noon + 120),
        ("iou_pct/road", 90.0, 16, noon + 120),
    ]
    assert scalars(Path("events/a/evaluate/fp32/64x128")) == [
        ("miou_pct", 21.5, 0, noon + 600),
        ("seconds/net", 3.0, 0, noon + 600),
    ]


def test_writing_again_replaces_what_was_there(run: RunFolder) -> None:
    for _ in range(2):
        assert main(["runs", "--format", "tensorboard", "--out", "events"]) == 0
    assert len(scalars(Path("events/a/train"))) == 6


def test_what_is_not_whole_is_left_out(run: RunFolder) -> None:
    write_json(run.step("evaluate", "int8").config_json, {})
    run.step("train").metrics_jsonl.write_text("{\n{}\n")
    assert main(["runs", "--format", "tensorboard", "--out", "events"]) == 0
    assert sorted(path.name for path in Path("events/a").iterdir()) == ["evaluate"]


def test_bad_places_are_refused(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--format", "tensorboard"]) == 2
    assert capsys.readouterr().err == "error: --format tensorboard: needs a folder; give --out events\n"
    Path("file").touch()
    assert main(["runs", "--format", "tensorboard", "--out", "file"]) == 2
    write_json(Path("more/a/train/config.json"), {})
    assert main(["runs", "more", "--format", "tensorboard", "--out", "events"]) == 2
    assert "error: RUN a: two runs have this name" in capsys.readouterr().err
