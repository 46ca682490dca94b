"""Run folders as the tasks leave them, of made-up nets on made-up streets: what the tests of the report read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segdist.run.files import write_json
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import Result

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
    for name, height, width in (("car", 40, 80), ("person", 60, 16), ("pole", 120, 5), ("vegetation", 70, 60)):
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
            "command": f"python -m jobs.submit pipeline --net.model {net.model} --run runs/{path.name}".split(),
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
        _evaluate(run.step("evaluate", precision), precision, net, common, sizes, images)
        _overlays(run.step("evaluate", precision).overlays, precision, images, paint)
        np.save(run.step("evaluate", precision).confusion_npy, confusion(len(sizes)))
    _quantize(run.step("quantize"), net)
    return path


def confusion(sizes: int = 1) -> NDArray[np.int64]:
    """Counts int64 ``[sizes, classes, classes]``: mostly right, a sixth of the riders taken for persons, no bus."""
    counts = np.eye(len(CLASSES), dtype=np.int64) * 5000
    rider, person = CLASSES.index("rider"), CLASSES.index("person")
    counts[rider, person], counts[0, 1] = 1000, 20
    counts[CLASSES.index("large vehicle")] = 0
    return np.stack([counts] * sizes)


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
        "decisions": {"precision": "fp32 (AVX512_VNNI has no bf16)", "collectives": "gloo (oneCCL is not installed)"},
        "versions": {"python": "3.11.7", "segdist": "0.1.0", "torch": "2.8.0", "ipex": "2.8.0", "commit": "abc1234"},
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


def _evaluate(
    step: StepFolder, precision: str, net: Net, common: dict[str, Any], sizes: tuple[str, ...], images: int
) -> None:
    roles = [(number, role) for number, role in zip(range(images), ("worst", "median", "best"))]
    shown = [{"stem": f"demo_{number:06d}", "role": role, "miou_pct": 40.0 + number} for number, role in roles]
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
            "category_miou_pct": net.miou_pct[precision] + 11.0,
            "iou_pct": ious | {"rider": None},
            "latency_ms_p50": latency,
            "latency_ms_p95": latency * 1.1,
            "latency_ms_p99": latency * 1.2,
            "latency_ms_mean": latency * 1.02,
            "images_per_s": 1000 / latency,
            "gmacs": net.gmacs * factor,
            "peak_memory_mb": 700.0 + 100 * number,
            "net_share_pct": 93.4,
        }
        if precision == "fp32":
            traced = net.latency_ms["traced"] * factor
            measured[size] |= {"traced_latency_ms_p50": traced, "traced_latency_ms_p95": traced * 1.1}
        else:
            eager, traced = (net.latency_ms[name] * factor for name in ("fp32", "traced"))
            measured[size] |= {"fp32_latency_ms_p50": eager, "fp32_traced_latency_ms_p50": traced}
            fp32 = net.miou_pct["fp32"] + number
            measured[size] |= {"goal": "1 % relative", "goal_fp32_miou_pct": fp32, "goal_miou_pct": fp32 * 0.99}
            measured[size]["goal_met"] = True
    _finish(
        step,
        common
        | {"precision": precision, "size_mb": net.size_mb[precision], "images": 16, "sizes": measured, "shown": shown},
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
        "weight_bits": 7,
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
        error = np.where((labels != shifted)[..., None], (176, 16, 32), (244, 244, 244)).astype(np.uint8)
        for kind, pixels in (
            ("image", image),
            ("truth", palette[labels]),
            ("prediction", palette[shifted]),
            ("error", error),
        ):
            Image.fromarray(pixels).save(folder / f"demo_{number:06d}_{kind}.png", compress_level=1)
