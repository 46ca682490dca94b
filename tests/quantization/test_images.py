"""Which images calibrate, and which score the trials: none does both unless val is asked for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from segdist.__main__ import main
from segdist.config import ConfigError, DatasetConfig, PipelineConfig, QuantizationConfig, TrainingConfig
from segdist.data.preflight import SCENES_COUNTS, preflight
from segdist.data.scenes import ScenesConfig
from segdist.data.tuning import choose_images


@pytest.mark.parametrize(("train", "val"), [(64, 16), (2975, 500), (40, 20), (8, 2)])
def test_trials_are_scored_on_an_even_spread_of_training_images_that_do_not_calibrate(train: int, val: int) -> None:
    cfg = QuantizationConfig(calibration_images=min(32, train // 2))
    calibrating, scored = choose_images(cfg, train, val)
    assert cfg.tuning_split == "train"
    assert not set(calibrating) & set(scored)
    assert len(set(scored)) == len(scored) == min(val, train - len(calibrating))
    assert max(scored) < train
    steps = [after - before for before, after in itertools.pairwise(scored)]
    assert max(steps) <= 2 * min(steps) + 1  # even: not a stretch of the split


def test_a_number_of_images_is_taken_from_all_over_what_is_left() -> None:
    calibrating, scored = choose_images(QuantizationConfig(calibration_images=10, tuning_images=5), 30, 500)
    assert calibrating == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert scored == [1, 7, 13, 19, 25]


def test_val_is_taken_where_it_is_asked_for() -> None:
    cfg = QuantizationConfig(calibration_images=8, tuning_split="val")
    assert choose_images(cfg, 8, 5) == (list(range(8)), list(range(5)))


@pytest.mark.parametrize(
    ("options", "train", "says"),
    [
        ({}, 32, "of 32 training images 32 calibrate, which leaves 0 to score on; at least 4 must be left; give fewer "
         "--calibration-images, or --tuning-split val"),
        ({"calibration_images": 1}, 1, "of 1 training image 1 calibrate, which leaves 0"),
        ({"calibration_images": 30, "tuning_images": 40}, 64, "of 64 training images 30 calibrate, which leaves 34 to "
         "score on; at least 40 must be left; give fewer --calibration-images or --tuning-images, or --tuning-split"),
    ],
)  # fmt: skip
def test_too_few_images_are_refused_with_the_numbers(options: dict[str, int], train: int, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose_images(QuantizationConfig(**options), train, 16)  # type: ignore[arg-type]
    assert f"--tuning-split train: {says}" in str(refused.value)


def test_a_pipeline_is_refused_before_its_training_starts(streets: Path) -> None:
    dataset, training = DatasetConfig(str(streets)), TrainingConfig(crop="64x128")
    with pytest.raises(ConfigError, match="of 8 training images 8 calibrate, which leaves 0"):
        preflight(PipelineConfig("run", dataset=dataset, training=training))
    enough = QuantizationConfig(calibration_images=4)
    preflight(PipelineConfig("run", dataset=dataset, training=training, quantization=enough))
    preflight(PipelineConfig("run"))
    assert (ScenesConfig(Path()).train, ScenesConfig(Path()).val) == SCENES_COUNTS


def test_another_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["quantize", "--run", str(tmp_path), "--tuning-split", "test"])
    assert stop.value.code == 2
    assert "--tuning-split" in capsys.readouterr().err
    config = tmp_path / "q.json"
    config.write_text(json.dumps({"run": str(tmp_path), "quantization": {"tuning_split": "test"}}))
    assert main(["quantize", "--config", str(config)]) == 2
    assert "tuning_split" in capsys.readouterr().err
