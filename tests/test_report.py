"""The report says what the run folders say, and says it when they are not whole."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from segdist.config import ConfigError
from segdist.report import main, write_report
from segdist.results import Result, RunFolder, StepFolder, write_json

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "sky",
    "person",
    "rider",
    "car",
    "large vehicle",
    "two-wheeler",
)
COLORS = (
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (153, 153, 153),
    (250, 170, 30),
    (220, 220, 0),
    (107, 142, 35),
    (70, 130, 180),
    (220, 20, 60),
    (255, 0, 0),
    (0, 0, 142),
    (0, 60, 100),
    (119, 11, 32),
)
LEADS = (36, 14, 22, -26, -30, -20, 24, 35, -18, 0, 15, 2, -32)
"""IoU of each class above the mean."""


# --- run folders as the tasks leave them ---------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """What a made-up run measured; the fields are in the units of the metrics."""

    model: str
    width: int
    parameters_m: float
    gmacs: float
    size_mb: dict[str, float]
    miou_pct: dict[str, float]
    latency_ms: dict[str, float]
    goal_met: bool = True


UNET = Net(
    "unet",
    16,
    1.94,
    12.1,
    {"fp32": 7.81, "int8": 2.02},
    {"fp32": 58.34, "int8": 58.02},
    {"fp32": 118.2, "traced": 84.1, "int8": 52.9},
)
HRNET = Net(
    "hrnetv2_w18",
    16,
    9.64,
    19.4,
    {"fp32": 38.95, "int8": 9.5},
    {"fp32": 61.52, "int8": 61.21},
    {"fp32": 190.0, "traced": 151.0, "int8": 100.0},
)
MACHINE = {
    "hosts": ["node01"],
    "cpu": "Example Xeon 8480+",
    "isa": "AVX512_VNNI",
    "cores": 2,
    "threads_per_rank": 1,
    "ranks": 2,
    "memory_gb": 16.0,
}

Pixels = NDArray[np.uint8]
Paint = Callable[[int], tuple[Pixels, Pixels]]


def paint(number: int) -> tuple[Pixels, Pixels]:
    """A street of rectangles: an image (h, w, 3) uint8 with noise, and its classes (h, w) uint8."""
    draw = np.random.default_rng(number)
    labels = np.full((256, 512), CLASSES.index("sky"), np.uint8)
    labels[90:, :] = CLASSES.index("building")
    labels[150:, :] = CLASSES.index("sidewalk")
    labels[170:, :] = CLASSES.index("road")
    for name, height, width in (
        ("car", 40, 80),
        ("person", 60, 16),
        ("pole", 120, 5),
        ("vegetation", 70, 60),
    ):
        y, x = int(draw.integers(90, 180)), int(draw.integers(0, 430))
        labels[y : y + height, x : x + width] = CLASSES.index(name)
    image = np.array(COLORS, np.int16)[labels] + draw.integers(-20, 20, (256, 512, 3))
    return image.clip(0, 255).astype(np.uint8), labels


def make_run(
    path: Path, net: Net, sizes: tuple[str, ...] = ("256x512",), images: int = 2, paint: Paint = paint
) -> Path:
    """A whole pipeline's run folder, as the contract between the tasks describes it."""
    run = RunFolder(path)
    names = [("train", "train"), ("evaluate", "fp32"), ("quantize", "quantize"), ("evaluate", "int8")]
    write_json(
        run.run_json,
        {
            "schema_version": 1,
            "run": str(path),
            "task": "pipeline",
            "created_at": "2026-01-31T12:00:00Z",
            "command": [
                "python",
                "-m",
                "jobs.submit",
                "pipeline",
                "--net.model",
                net.model,
                "--run",
                f"runs/{path.name}",
            ],
            "cwd": "/home/someone/project",
            "resources": {"nodes": 1, "ranks_per_node": 2},
            "steps": [{"step": n if t == "evaluate" else t, "task": t, "name": n} for t, n in names],
            "versions": {"segdist": "0.1.0", "commit": "abc1234", "python": "3.11.7"},
        },
    )
    common = {
        "model": net.model,
        "width": net.width,
        "labels": "street13",
        "classes": list(CLASSES),
        "colors": [list(color) for color in COLORS],
        "parameters_m": net.parameters_m,
    }
    _train(run.step("train"), net, common)
    for precision in ("fp32", "int8"):
        _evaluate(run.step("evaluate", precision), precision, net, common, sizes)
        _overlays(run.step("evaluate", precision).overlays, precision, images, paint)
    _quantize(run.step("quantize"), net)
    return path


def _finish(step: StepFolder, metrics: dict[str, Any], **changes: Any) -> None:
    values: dict[str, Any] = {
        "task": step.task,
        "name": step.name,
        "status": "completed",
        "started_at": "2026-01-31T12:00:10Z",
        "ended_at": "2026-01-31T12:09:30Z",
        "elapsed_s": 252.4,
        "metrics": metrics,
        "machine": MACHINE,
        "decisions": {
            "precision": "fp32 (AVX512_VNNI has no bf16)",
            "collectives": "gloo (oneCCL is not installed)",
        },
        "versions": {
            "python": "3.11.7",
            "segdist": "0.1.0",
            "torch": "2.8.0",
            "ipex": "2.8.0",
            "commit": "abc1234",
        },
    }
    step.write_result(Result(**(values | changes)))


def _train(step: StepFolder, net: Net, common: dict[str, Any]) -> None:
    write_json(step.config_json, {"net": {"model": net.model, "width": net.width}, "training": {"epochs": 12}})
    rows = []
    for epoch in range(1, 13):
        rise = 1 - np.exp(-epoch / (2 + net.width / 8 if net.model == "unet" else 3))
        rows.append(
            {
                "epoch": epoch,
                "step": epoch * 8,
                "lr": 0.01,
                "train_loss": 2.4 - 1.8 * rise + 0.05 * (epoch % 3),
                "val_loss": 2.5 - 1.7 * rise,
                "miou_pct": net.miou_pct["fp32"] * rise,
                "pixel_accuracy_pct": 90 * rise,
                "images_per_s": 6.2,
                "time_per_image_ms": 161.0,
                "elapsed_s": epoch * 20.0,
            }
        )
    step.metrics_jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _finish(
        step,
        common
        | {
            "epochs": 12,
            "steps": 96,
            "best_epoch": 12,
            "best_miou_pct": net.miou_pct["fp32"],
            "miou_pct": net.miou_pct["fp32"],
            "pixel_accuracy_pct": 86.0,
            "train_loss": 0.6123,
            "val_loss": 0.8456,
            "images_per_s": 6.2,
            "time_per_image_ms": 161.0,
        },
    )


def _evaluate(step: StepFolder, precision: str, net: Net, common: dict[str, Any], sizes: tuple[str, ...]) -> None:
    write_json(step.config_json, {"evaluation": {"sizes": list(sizes), "latency_runs": 20, "latency_warmup": 3}})
    measured = {}
    for number, size in enumerate(sizes):
        factor = 4.0**number
        latency = net.latency_ms[precision] * factor
        ious = {name: min(97.0, net.miou_pct[precision] + lead) for name, lead in zip(CLASSES, LEADS)}
        measured[size] = {
            "loss": 0.85,
            "miou_pct": net.miou_pct[precision] + number,
            "pixel_accuracy_pct": 88.26,
            "iou_pct": ious | {"rider": None},
            "latency_ms_p50": latency,
            "latency_ms_p95": latency * 1.1,
            "latency_ms_p99": latency * 1.2,
            "latency_ms_mean": latency * 1.02,
            "images_per_s": 1000 / latency,
            "gmacs": net.gmacs * factor,
        }
        if precision == "fp32":
            measured[size]["traced_latency_ms_p50"] = net.latency_ms["traced"] * factor
    _finish(
        step,
        common | {"precision": precision, "size_mb": net.size_mb[precision], "images": 16, "sizes": measured},
    )


def _quantize(step: StepFolder, net: Net) -> None:
    write_json(step.config_json, {"quantization": {"accuracy_drop": 0.01, "relative": True}})
    fp32, int8 = net.miou_pct["fp32"], net.miou_pct["int8"]
    metrics = {
        "model": net.model,
        "width": net.width,
        "precision": "int8",
        "baseline_miou_pct": fp32,
        "miou_pct": int8,
        "goal_miou_pct": fp32 * 0.99,
        "goal_met": net.goal_met,
        "drop_points": fp32 - int8,
        "reduce_range": True,
        "trials": [
            {"trial": 1, "miou_pct": fp32 - 2.1, "seconds": 28.4},
            {"trial": 2, "miou_pct": int8, "seconds": 75.0},
        ],
        "fp32_ops": ["stem.conv1", "head.3"],
        "size_mb": net.size_mb["int8"],
        "fp32_size_mb": net.size_mb["fp32"],
    }
    if net.goal_met:
        _finish(step, metrics)
    else:
        _finish(step, metrics, status="failed", error="MISSED the goal", log=str(step.rank_log(0)))


def _overlays(folder: Path, precision: str, images: int, paint: Paint) -> None:
    folder.mkdir(parents=True)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(COLORS)] = COLORS
    for number in range(images):
        image, labels = paint(number)
        shifted = np.roll(labels, 4 if precision == "fp32" else 7, axis=1)
        for kind, pixels in (("image", image), ("truth", palette[labels]), ("prediction", palette[shifted])):
            Image.fromarray(pixels).save(folder / f"demo_{number:06d}_{kind}.png", compress_level=1)


# --- reading the page ----------------------------------------------------------------------------------

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """A parsed page: its text, its elements, and what is wrong with its nesting."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]
        self.text = " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len({name for name, _ in attrs}) < len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes something else")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("built") / "hrnet", HRNET)


@pytest.fixture
def run(built: Path, tmp_path: Path) -> Path:
    """A whole run of HRNET, for the test to spoil."""
    return Path(shutil.copytree(built, tmp_path / "run"))


def report(*runs: Path) -> Page:
    out = runs[0].parent / "report.html"
    assert write_report(runs, out) == out
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("two")
    return report(make_run(folder / "demo-unet", UNET, images=4), make_run(folder / "demo-hrnet", HRNET, images=4))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


# --- what it says --------------------------------------------------------------------------------------


def test_says_what_and_when(two: Page) -> None:
    assert "unet (width 16) and hrnetv2_w18" in two.text
    assert "street13, 13 classes" in two.text
    assert "2026-01-31 12:00 UTC to 2026-01-31 12:09 UTC" in two.text


def test_sums_up_each_net_in_a_sentence(two: Page) -> None:
    assert "hrnetv2_w18: int8 61.2 % mIoU (fp32 61.5 %), 1.9× faster, 4.1× smaller; goal 1 % relative met" in two.text
    assert "unet (width 16): int8 58.0 % mIoU (fp32 58.3 %), 2.2× faster, 3.9× smaller" in two.text


def test_table_has_every_number_with_its_digits(two: Page) -> None:
    #       model       mIoU  change  PA     p50 p95  speed-up MB  parameters GMAC
    assert "fp32 eager 61.5 % – 88.3 % 190 209 1.0× 39.0 9.64 19.4" in two.text
    assert "fp32 traced – – – 151 – 1.3× – – –" in two.text
    assert "int8 61.2 % −0.3 88.3 % 100 110 1.9× 9.50 9.64 19.4" in two.text
    assert "int8 58.0 % −0.3 88.3 % 52.9 58.2 2.2× 2.02 1.94 12.1" in two.text


def test_says_how_latency_was_measured(two: Page) -> None:
    assert "one image at a time (batch 1) on rank 0 while the other ranks wait." in two.text
    assert "20 timed runs after 3 to warm up, 1 thread, AVX512_VNNI." in two.text


def test_speed_table_has_threads_and_instruction_set(two: Page) -> None:
    #            p50  p95 p99 mean images/s  threads
    assert "int8 100 110 120 102 10.0 1.9× 1 AVX512_VNNI" in two.text


def test_says_how_it_was_quantized(two: Page) -> None:
    assert "goal 1 % relative: met" in two.text
    assert "61.2 %, fp32 61.5 % (−0.3 points)" in two.text
    assert "trial 2, 1 min 15 s" in two.text
    assert "goal 60.9" in two.text  # 0.99 of 61.52
    assert "stem.conv1, head.3" in two.text
    assert "reduced to 7 bits" in two.text


def test_says_how_it_was_made(two: Page) -> None:
    assert "Example Xeon 8480+ every step" in two.text
    assert "gloo (oneCCL is not installed) every step" in two.text
    assert "torch 2.8.0 every step" in two.text
    assert "python -m jobs.submit pipeline --net.model hrnetv2_w18 --run runs/demo-hrnet" in two.text


def test_absent_class_is_no_zero(two: Page) -> None:
    assert "rider absent absent absent absent" in two.text
    assert "road 94.3 % 94.0 % 97.0 % 97.0 %" in two.text


def test_overlays_show_picture_and_truth_once_for_all_nets(two: Page) -> None:
    pictures = [str(image["src"]) for image in two.all("img")]
    assert "not readable" not in two.text
    assert len(pictures) == 4 * (2 + 2 * 2)
    assert sum(picture.startswith("data:image/jpeg;base64,") for picture in pictures) == 4
    assert sum(picture.startswith("data:image/png;base64,") for picture in pictures) == 20
    alts = [image["alt"] for image in two.all("img")]
    assert alts[:3] == [
        "demo_000000: image",
        "demo_000000: truth",
        "demo_000000: unet (width 16) fp32 prediction",
    ]


def test_label_pictures_keep_their_exact_colours(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", UNET, images=1))
    truth = str(page.all("img")[1]["src"]).removeprefix("data:image/png;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(truth))).convert("RGB"))
    np.testing.assert_array_equal(shown, np.array(COLORS, np.uint8)[paint(0)[1]])


def test_large_overlays_are_scaled_and_counted(tmp_path: Path) -> None:
    def large(number: int) -> tuple[Pixels, Pixels]:
        image, labels = paint(number)
        return image.repeat(2, 0).repeat(2, 1), labels.repeat(2, 0).repeat(2, 1)

    page = report(make_run(tmp_path / "run", UNET, images=7, paint=large))
    assert "The first 6 of 7 images in the run folders." in page.text
    assert len(page.source) < 1_500_000


def test_sizes_have_rows_of_their_own_and_bars_are_of_the_largest(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", HRNET, sizes=("256x512", "512x1024")))
    assert "hrnetv2_w18 256×512, 16 images fp32 eager 61.5 %" in page.text
    assert "hrnetv2_w18 512×1024, 16 images fp32 eager 62.5 % – 88.3 % 760 836" in page.text
    assert "hrnetv2_w18 fp32, 512×1024" in page.text
    assert "hrnetv2_w18 fp32, 256×512" not in page.text
    assert "int8 62.2 % mIoU (fp32 62.5 %) at 512×1024, 1.9× faster" in page.text


def test_single_run(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run", UNET))
    assert "hrnetv2" not in page.text
    assert page.text.count("int8 58.0 % mIoU") == 1
    assert "went wrong" not in page.text


def test_same_net_twice_is_told_apart_by_the_folder(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "a", UNET), make_run(tmp_path / "b", UNET))
    assert "unet (width 16) · a and unet (width 16) · b" in page.text


def test_precision_decides_which_evaluation_is_which(run: Path) -> None:
    (run / "evaluate" / "int8").rename(run / "evaluate" / "a-first")
    (run / "evaluate" / "fp32").rename(run / "evaluate" / "int8")
    edit(run / "run.json", lambda record: record.update(steps=[]))
    page = report(run)
    assert "int8 61.2 % mIoU (fp32 61.5 %), 1.9× faster" in page.text
    assert "int8 · a-first 61.2 % −0.3" in page.text


# --- what it says when something is missing ------------------------------------------------------------


def test_failed_step_is_named_at_the_top_with_error_and_log(run: Path) -> None:
    for step in ("evaluate/fp32", "quantize", "evaluate/int8"):
        reason = {"status": "skipped", "error": "train failed", "metrics": {}}
        edit(run / step / "result.json", lambda result, reason=reason: result.update(reason))
    failure = {
        "status": "failed",
        "error": "\x1b[31mRuntimeError: loss is nan\x1b[0m",
        "log": "train/logs/rank1.log",
    }
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
    assert "int8 61.2 % mIoU (fp32 61.5 %), 1.9× faster" in page.text


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


def test_empty_step_folder(tmp_path: Path) -> None:
    (tmp_path / "run" / "train").mkdir(parents=True)
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


# --- what the page is ----------------------------------------------------------------------------------


def test_hostile_text_stays_text(run: Path) -> None:
    hostile = """<script>alert("x")</script>'"&$\\frac{1}{2}$ font-family: a"""

    def spoil(result: dict[str, Any]) -> None:
        metrics = result["metrics"]
        metrics["classes"] = [hostile, *CLASSES[1:]]
        metrics["model"] = metrics["labels"] = hostile
        metrics["colors"] = [["red;}</style>", 0, 0], *COLORS[1:]]
        metrics["fp32_ops"] = [hostile]
        metrics["trials"] = [{"trial": hostile, "miou_pct": 60.0}]
        for size in metrics.get("sizes", {}).values():
            size["iou_pct"] = {hostile: 50.0, "$\\frac{$": 40.0, hostile + " none": None}
        result["machine"] = {hostile: hostile, "isa": hostile, "threads_per_rank": hostile}
        result["decisions"] = result["versions"] = {hostile: hostile}
        result |= {"status": "failed", "error": hostile, "log": hostile, "started_at": hostile}

    for step in ("train", "evaluate/fp32", "quantize", "evaluate/int8"):
        edit(run / step / "result.json", spoil)
    edit(run / "run.json", lambda record: record.update(command=[hostile], cwd=hostile, created_at=hostile))
    for file in (run / "evaluate" / "fp32" / "overlays").glob("demo_000000_*"):
        file.rename(file.with_name(f'"><script>_{file.name}'))
    page = report(run)
    assert page.all("script") == []
    assert page.faults == []
    assert hostile in page.text


def test_stands_alone(two: Page) -> None:
    for tag, attributes in two.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("data:image/", "#")), (tag, name, value)
    assert re.findall(r"url\((?!#)", two.source) == []
    assert "@import" not in two.source
    assert "@font-face" not in two.source


def test_is_well_formed(two: Page) -> None:
    assert two.source.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert two.faults == []
    ids = [attributes["id"] for _, attributes in two.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', two.source))
    assert used <= set(ids)
    assert "<text" in two.source  # text is text, not outlines


def test_can_be_read_without_seeing(two: Page) -> None:
    assert all(header.get("scope") for header in two.all("th"))
    assert all(image.get("alt") for image in two.all("img"))
    charts = two.all("svg")
    assert len(charts) == 2 + 2 + 2
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert charts[1]["aria-label"] == "mIoU in % by epoch: unet (width 16) ends at 55.4; hrnetv2_w18 ends at 60.4."


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_on_light_and_on_dark(two: Page) -> None:
    blocks = re.findall(r"--paper: #[^}]*", two.source)
    themes = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in blocks]
    assert len(themes) == 4

    def contrast(theme: dict[str, str], text: str, paper: str) -> float:
        high, low = sorted((_luminance(theme[text]), _luminance(theme[paper])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for theme in themes:
        for text, paper in (
            ("ink", "paper"),
            ("muted", "paper"),
            ("ink", "panel"),
            ("muted", "panel"),
            ("bad", "paper"),
            ("bad", "bad-paper"),
            ("ink", "bad-paper"),
            ("good", "paper"),
        ):
            assert contrast(theme, text, paper) >= 4.5, (text, paper)
        for net in range(6):
            assert contrast(theme, f"s{net}", "paper") >= 3, net


def test_is_small(two: Page) -> None:
    assert len(two.source.encode()) < 3_000_000


def test_same_folders_give_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", UNET)
    assert (
        write_report([run], tmp_path / "a.html").read_bytes() == write_report([run], tmp_path / "b.html").read_bytes()
    )


# --- the command ---------------------------------------------------------------------------------------


def test_command_writes_the_page_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = make_run(tmp_path / "run", UNET), tmp_path / "new" / "report.html"
    assert main([str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["missing"], "RUN 'missing': is no folder; give a run folder, for example runs/unet"),
        (
            ["empty"],
            "RUN 'empty': holds no run.json and no step (train, evaluate, quantize); give a run folder",
        ),
        (["run", "./run"], "RUN run run: name each run folder once"),
        (
            ["run", "--out", "empty"],
            "--out 'empty': is a folder; give the name of a file, for example report.html",
        ),
        (
            ["run", "--out", "file/x.html"],
            "--out 'file/x.html': cannot be written (File exists); give another file",
        ),
    ],
)
def test_command_refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "run" / "train").mkdir(parents=True)
    assert main(argv if "--out" in argv else [*argv, "--out", "report.html"]) == 2
    assert capsys.readouterr().err == f"error: {says}\n"
    assert not (tmp_path / "report.html").exists()


def test_command_wants_runs_and_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run"])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no run folder was named"):
        write_report([], Path("report.html"))
    assert main(["--out", "report.html"]) == 2
    assert "error: RUN: no run folder was named; give at least one" in capsys.readouterr().err
