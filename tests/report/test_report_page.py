"""The page is one well-formed file that stands alone, is safe, small and readable, and shows pictures as they are."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segdist.report.page import write_report

from .page_fixture import Page, edit, report, report_two
from .run_fixture import CLASSES, COLORS, HRNET, UNET, Pixels, make_run, paint


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report_two(tmp_path_factory.mktemp("two"))


def test_overlays_show_picture_and_truth_once_for_all_nets(two: Page) -> None:
    pictures = [str(image["src"]) for image in two.all("img")]
    assert "not readable" not in two.text
    assert len(pictures) == 4 * (2 + 2 * 4)
    assert sum(picture.startswith("data:image/jpeg;base64,") for picture in pictures) == 4
    assert sum(picture.startswith("data:image/png;base64,") for picture in pictures) == 36
    alts = [image["alt"] for image in two.all("img")]
    assert alts[:4] == [
        "demo_000000: image",
        "demo_000000: truth",
        "demo_000000: unet (width 16) fp32 prediction",
        "demo_000000: unet (width 16) fp32 errors",
    ]


def test_overlays_say_why_they_are_shown(two: Page) -> None:
    assert "worst of unet (width 16): 40.0 % mIoU; worst of hrnetv2_w18: 40.0 % mIoU demo_000000" in two.text
    places = [two.text.index(f"{role} of unet (width 16)") for role in ("worst", "median", "best")]
    assert places == sorted(places)


def test_of_many_images_the_worst_median_and_best_come_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", UNET, images=8)

    def change(result: dict[str, Any]) -> None:
        roles = {5: "worst", 0: "worst", 7: "median", 1: "median", 6: "best", 2: "best"}
        result["metrics"]["shown"] = [
            {"stem": f"demo_{number:06d}", "role": role, "miou_pct": 1.0} for number, role in roles.items()
        ]

    for precision in ("fp32", "int8"):
        edit(run / "evaluate" / precision / "result.json", change)
    page = report(run)
    shown = list(dict.fromkeys(str(image["alt"]).partition(":")[0] for image in page.all("img")))
    assert shown == [f"demo_{number:06d}" for number in (5, 0, 7, 1, 6, 2)]
    assert "second worst of unet (width 16): 1.0 % mIoU demo_000000" in page.text
    assert "The first 6 of 8 images in the run folders." in page.text


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


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", HRNET)
    hostile = """<script>alert("x")</script>'"&$\\frac{1}{2}$ font-family: a"""

    def spoil(result: dict[str, Any]) -> None:
        metrics = result["metrics"]
        metrics["classes"] = [hostile, *CLASSES[1:]]
        metrics["model"] = metrics["labels"] = hostile
        metrics["colors"] = [["red;}</style>", 0, 0], *COLORS[1:]]
        metrics["fp32_ops"] = [hostile]
        metrics["weight_bits"] = hostile
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
    assert page.all("script") == [{}]  # the page's own, which sorts tables
    assert page.faults == []
    assert hostile in page.text


def test_stands_alone(two: Page) -> None:
    for tag, attributes in two.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
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
    assert len(charts) == 6 + 1 + 2 + 2 + 2 + 2  # bars, scatter, curves, classes, matrices, trials
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    labels = [str(chart["aria-label"]).replace("\N{NO-BREAK SPACE}", " ") for chart in charts]
    assert "mIoU in % by epoch: unet (width 16) ends at 55.4; hrnetv2_w18 ends at 60.4." in labels
    assert "parameters, M: unet (width 16) 1.94; hrnetv2_w18 9.64." in labels
    assert labels[6].startswith("mIoU against latency. unet (width 16) fp32: 58.3 % in 84.1 ms (eager 118); unet")
    matrix = "Confusion matrix of hrnetv2_w18 fp32, percent of each true class. 16.7 % of rider is taken for person; "
    assert any(label.startswith(matrix) for label in labels)


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
