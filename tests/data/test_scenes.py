"""The procedural street scenes: layout of the folder, content of the label maps, determinism, refusals."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdist.data.scenes import ScenesConfig, ScenesError, ensure_scenes, write_scenes
from segdist.data.scenes import dataset as scenes
from segdist.data.scenes.dataset import main
from segdist.data.scenes.labels import RARE_GROUPS, SCENE_GROUPS, LabelId
from segdist.data.scenes.painter import paint_scene

SMALL = "64x128"


def _digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file under `root`, by its path in there."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _labels(root: Path, split: str) -> Iterator[np.ndarray]:
    for path in sorted((root / "gtFine" / split).glob("*/*.png")):
        yield np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "small"
    return write_scenes(ScenesConfig(out=out, train=5, val=2, test=1, size="64x160", workers=1))


@pytest.fixture(scope="module")
def gallery() -> list[np.ndarray]:
    """Label maps of 24 scenes, asked for their groups as a data set's are."""
    maps = []
    for index in range(24):
        rng = np.random.default_rng([11, 0, index])
        maps.append(paint_scene(rng, 128, 256, scenes._groups_of(index)).label)
    return maps


def test_files_are_named_and_placed_as_in_cityscapes(small_set: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 1)):
        images = sorted((small_set / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == count
        for image in images:
            city, sequence, frame, _ = image.stem.split("_")
            assert image.parent.name == city
            assert len(sequence) == len(frame) == 6
            assert (sequence + frame).isdigit()
            name = f"{city}_{sequence}_{frame}_gtFine_labelIds.png"
            assert (small_set / "gtFine" / split / city / name).is_file()


def test_pictures_are_rgb_and_label_maps_single_channel_of_the_size_asked_for(small_set: Path) -> None:
    for path in (small_set / "leftImg8bit").rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (160, 64))
    for path in (small_set / "gtFine").rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (160, 64))


def test_label_maps_hold_only_known_label_ids(small_set: Path, gallery: list[np.ndarray]) -> None:
    known = {int(label) for label in LabelId}
    for split in ("train", "val", "test"):
        for label in _labels(small_set, split):
            assert set(np.unique(label).tolist()) <= known
    for label in gallery:
        assert label.dtype == np.uint8
        assert set(np.unique(label).tolist()) <= known


def test_every_split_holds_all_13_groups_even_with_one_scene(small_set: Path) -> None:
    assert len(SCENE_GROUPS) == 13
    for split in ("train", "val", "test"):
        present = np.unique(np.concatenate([label.ravel() for label in _labels(small_set, split)]))
        for name, labels in SCENE_GROUPS.items():
            assert np.isin(labels, present).any(), f"{name} is missing in {split}"


@pytest.mark.parametrize("size", [(64, 64), (64, 256), (128, 64), (96, 160)])
def test_a_scene_shows_every_group_asked_for_at_unusual_sizes(size: tuple[int, int]) -> None:
    for seed in range(2):
        scene = paint_scene(np.random.default_rng([seed]), *size, groups=RARE_GROUPS)
        assert scene.image.shape == (*size, 3)
        assert scene.label.shape == size
        for name in SCENE_GROUPS:
            assert scene.shows(name), f"{name} is not seen"


def test_pixel_shares_are_like_those_of_real_streets(gallery: list[np.ndarray]) -> None:
    bands = {
        "road": (0.26, 0.42),
        "sidewalk": (0.02, 0.10),
        "building": (0.15, 0.32),
        "pole": (0.008, 0.030),
        "traffic light": (0.002, 0.012),
        "traffic sign": (0.003, 0.015),
        "vegetation": (0.09, 0.24),
        "sky": (0.03, 0.14),
        "person": (0.005, 0.022),
        "rider": (0.002, 0.014),
        "car": (0.04, 0.13),
        "large vehicle": (0.004, 0.030),
        "two-wheeler": (0.004, 0.018),
    }
    counts = np.sum([np.bincount(label.ravel(), minlength=256) for label in gallery], axis=0)
    pixels = {name: counts[list(labels)].sum() for name, labels in SCENE_GROUPS.items()}
    shares = {name: float(value / sum(pixels.values())) for name, value in pixels.items()}
    outside = {name: share for name, share in shares.items() if not bands[name][0] <= share <= bands[name][1]}
    assert not outside


def test_rare_groups_are_in_at_least_half_of_the_scenes(gallery: list[np.ndarray]) -> None:
    for name in RARE_GROUPS:
        seen = sum(bool(np.isin(label, SCENE_GROUPS[name]).any()) for label in gallery)
        assert seen >= len(gallery) / 2, f"{name} is in {seen} of {len(gallery)} scenes"


def test_the_same_seed_writes_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    common = {"train": 6, "val": 2, "size": SMALL, "seed": 3}
    one = write_scenes(ScenesConfig(out=tmp_path / "one", workers=1, **common))  # type: ignore[arg-type]
    two = write_scenes(ScenesConfig(out=tmp_path / "two", workers=2, **common))  # type: ignore[arg-type]
    assert _digests(one) == _digests(two)


def test_scenes_differ_by_seed_split_and_number() -> None:
    images = [
        paint_scene(np.random.default_rng(seed), 64, 128).image.tobytes()
        for seed in ([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1])
    ]
    assert len(set(images)) == 4


def test_a_scene_of_a_set_does_not_depend_on_how_many_there_are(tmp_path: Path, small_set: Path) -> None:
    fewer = write_scenes(ScenesConfig(out=tmp_path / "fewer", train=2, val=1, size="64x160", workers=1))
    whole = _digests(small_set)
    for name, digest in _digests(fewer).items():
        if name != scenes.RECORD:
            assert whole[name] == digest


def test_a_set_that_is_there_is_kept(small_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    config = ScenesConfig(out=small_set, train=5, val=2, test=1, size="64x160", workers=2)
    assert write_scenes(config) == small_set
    assert "already holds this set" in capsys.readouterr().out
    assert ensure_scenes(config) == small_set
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == before


def test_another_set_is_refused_and_left_as_it_is(small_set: Path) -> None:
    before = _digests(small_set)
    with pytest.raises(ScenesError, match=r"holds another set.*choose another folder with --out"):
        ensure_scenes(ScenesConfig(out=small_set, train=5, val=2, test=1, size="64x160", seed=1))
    assert _digests(small_set) == before


def test_a_set_with_files_missing_is_refused(tmp_path: Path) -> None:
    config = ScenesConfig(out=tmp_path / "set", train=1, val=1, size="64x64", workers=1)
    ensure_scenes(config)
    next((config.out / "gtFine" / "val").glob("*/*.png")).unlink()
    with pytest.raises(ScenesError, match=r"holds 0 of 1 label maps in val; remove the folder"):
        ensure_scenes(config)


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ScenesError, match=r"holds other files.*--out"):
        ensure_scenes(ScenesConfig(out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_may_be_the_target(tmp_path: Path) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    ensure_scenes(ScenesConfig(out=out, train=1, val=0, size="64x64", workers=1))
    record = json.loads((out / scenes.RECORD).read_text())
    expected = {"generator": scenes.GENERATOR, "train": 1, "val": 0, "test": 0, "size": "64x64", "seed": 0}
    assert record == expected


def test_a_crash_while_painting_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint, painted = scenes._paint, []

    def fail_at_third(job: scenes._Job) -> None:
        painted.append(job)
        if len(painted) == 3:
            raise OSError("disk full")
        paint(job)

    monkeypatch.setattr(scenes, "_paint", fail_at_third)
    with pytest.raises(OSError, match="disk full"):
        ensure_scenes(ScenesConfig(out=tmp_path / "set", train=4, val=1, size="64x64", workers=1))
    assert len(painted) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_callers_at_the_same_time_get_one_whole_set(tmp_path: Path) -> None:
    config = ScenesConfig(out=tmp_path / "set", train=3, val=1, size="64x64", workers=1)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ensure_scenes, [config, config])) == [config.out] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list(config.out.rglob("*.png"))) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "256"], "size '256' is not HEIGHTxWIDTH"),
        (["--size", "256x500"], "has a side that is below 64 or no multiple of 32; use e.g. --size 256x480"),
        (["--size", "32x64"], "use e.g. --size 64x64"),
        (["--train", "0"], "train 0 is below 1; a data set needs training scenes, e.g. --train 64"),
        (["--val", "-1"], "val -1 is negative; give 0 or more, e.g. --val 0"),
        (["--seed", "-5"], "seed -5 is negative"),
        (["--workers", "-2"], "workers -2 is negative"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_with_value_rule_and_fix(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "set"), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_target_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "notes.txt"
    target.write_text("notes")
    assert main(["--out", str(target)]) == 2
    assert "is a file; --out must name a new folder" in capsys.readouterr().err
    assert target.read_text() == "notes"


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "set"
    command = [sys.executable, "-m", "segdist.data.scenes", "--out", str(out), "--size", "64x64"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [*command, "--train", "2", "--val", "1"], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"wrote 3 scenes to {out}" in done.stdout
    refused = subprocess.run([*command, "--train", "3"], capture_output=True, text=True, cwd=root, check=False)
    assert refused.returncode == 2
    assert "holds another set" in refused.stderr
