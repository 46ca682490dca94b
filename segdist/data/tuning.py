"""Which images calibrate an int8 model, and which score the trials of its tuning."""

from __future__ import annotations

from segdist.config import ConfigError, QuantizationConfig
from segdist.system.plural import count_noun

LEAST_TUNING_IMAGES = 4
"""Training images that must be left to score on, unless ``--tuning-images`` asks for a number."""


def choose_images(cfg: QuantizationConfig, train: int, val: int) -> tuple[list[int], list[int]]:
    """Indices of the training images that calibrate, and of the images of ``tuning_split`` that score the trials.

    Raises:
        ConfigError: where training images score and calibration leaves too few of them.
    """
    calibrating = evenly_spaced(train, cfg.calibration_images)
    if cfg.tuning_split == "val":
        return calibrating, evenly_spaced(val, cfg.tuning_images or val)
    left = sorted(set(range(train)) - set(calibrating))
    least = cfg.tuning_images or min(val, LEAST_TUNING_IMAGES)
    if len(left) < least:
        raise ConfigError(
            f"--tuning-split train: of {count_noun(train, 'training image')} {len(calibrating)} calibrate, which "
            f"leaves {len(left)} to score on; at least {least} must be left; give fewer --calibration-images"
            f"{' or --tuning-images' if cfg.tuning_images else ''}, or --tuning-split val"
        )
    return calibrating, [left[index] for index in evenly_spaced(len(left), cfg.tuning_images or val)]


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """``wanted`` indices evenly spaced over ``total``, the first one among them; all where there are fewer."""
    count = min(total, wanted)
    return [number * total // count for number in range(count)] if count else []
