"""From a painted canvas to the picture a camera would deliver: grain of the ground, haze, lens and sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segdist.data.scenes.canvas import NEAREST, Canvas
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.street import GROUND

SUPERSAMPLING = 2
"""Canvas pixels per picture pixel along each side."""

_COARSE, _FINE = np.full(256, 0.010, np.float32), np.full(256, 0.010, np.float32)
for _label, _coarse_gain, _fine_gain in (
    (LabelId.ROAD, 0.030, 0.035),
    (LabelId.SIDEWALK, 0.035, 0.030),
    (LabelId.TERRAIN, 0.090, 0.085),
    (LabelId.RAIL_TRACK, 0.030, 0.030),
    (LabelId.BUILDING, 0.022, 0.026),
    (LabelId.WALL, 0.040, 0.045),
    (LabelId.FENCE, 0.030, 0.030),
    (LabelId.VEGETATION, 0.035, 0.090),
    (LabelId.SKY, 0.0, 0.0),
):
    _COARSE[_label], _FINE[_label] = _coarse_gain, _fine_gain


def _ground_detail(picture: NDArray[np.float32], label: NDArray[np.uint8], canvas: Canvas) -> None:
    """Give the ground its grain, paving joints and haze, by where each pixel lies in the world; in place."""
    camera, weather, noise = canvas.camera, canvas.weather, canvas.noise
    top = int(np.clip(np.ceil(camera.horizon / SUPERSAMPLING) + 1, 0, label.shape[0] - 1))
    rows = (np.arange(top, label.shape[0], dtype=np.float32) + 0.5) * SUPERSAMPLING
    columns = (np.arange(label.shape[1], dtype=np.float32) + 0.5) * SUPERSAMPLING
    z = np.maximum(camera.focal * camera.eye / (rows - camera.horizon), NEAREST)[:, None]
    x = (columns[None, :] - camera.centre) * z / camera.focal + camera.lateral - 0.5 * camera.curvature * z * z
    part, ids = picture[top:], label[top:]
    ground = GROUND[ids]
    zz = np.broadcast_to((z * 7).astype(np.int32) % 256, x.shape)
    grain = noise[(zz, (x * 22).astype(np.int32) % 256)] * (_FINE + _COARSE)[ids]
    near = np.clip(1.25 - z / 40, 0.25, 1.0)
    gain = 1.0 + grain * near * ground
    slab = ((x % 0.6) < 0.05) | ((z % 0.6) < 0.06)
    gain -= 0.16 * (slab & (ids == LabelId.SIDEWALK)) * np.clip(1.3 - z / 14, 0, 1)
    fade = (1.0 - np.exp(-z / weather.visibility)) * ground
    part *= gain[:, :, None]
    part += (np.array(weather.haze, np.float32) - part) * fade[:, :, None].astype(np.float32)
    if weather.wet > 0.05:
        source = np.clip(2 * top - np.arange(top, label.shape[0]), 0, top - 1)
        streaks = Image.fromarray(np.clip(picture[:top], 0, 255).astype(np.uint8))
        blurred = streaks.resize((label.shape[1] // 3, max(2, top // 12)), Image.Resampling.BOX)
        mirror = np.asarray(blurred.resize((label.shape[1], top), Image.Resampling.BICUBIC)).astype(np.float32)[source]
        share = weather.wet * (ids == LabelId.ROAD)[:, :, None] * np.clip(0.4 + z / 30, 0, 1)[:, :, None]
        part += (mirror - part) * share.astype(np.float32)


def develop(canvas: Canvas, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture (H, W, 3) and the label map (H, W), both uint8, of a painted canvas.

    The picture is the mean over each block of canvas pixels, so its edges are smooth; a label is that of one
    canvas pixel, never a blend. Colours then vary with exposure, white balance, vignetting and noise.
    """
    label = np.asarray(canvas.label)[::SUPERSAMPLING, ::SUPERSAMPLING].copy()
    picture = np.asarray(canvas.image.reduce(SUPERSAMPLING)).astype(np.float32)
    height, width = label.shape
    _ground_detail(picture, label, canvas)
    fine = rng.standard_normal((height, width), dtype=np.float32)
    size = (max(2, width // 3), max(2, height // 3))
    blotch = Image.fromarray(rng.standard_normal((size[1], size[0]), dtype=np.float32))
    coarse = np.asarray(blotch.resize((width, height), Image.Resampling.BICUBIC))
    grain = np.where(GROUND[label], 0.0, fine * _FINE[label] + coarse * _COARSE[label]).astype(np.float32)
    picture *= 1.0 + grain[:, :, None]

    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    vignette = 1.0 - float(rng.uniform(0.05, 0.22)) * (across**2 * 0.7 + down**2 * 0.3)
    exposure = float(np.exp(rng.normal(0.06, 0.11)))
    warmth = float(rng.normal(0.0, 0.035))
    balance = np.array([1.0 + warmth, 1.0, 1.0 - warmth], np.float32) * np.float32(exposure)
    picture *= vignette[:, :, None] * balance
    # A gentle shoulder keeps bright walls and clouds from clipping to flat white.
    bright = picture > 200
    picture[bright] = 200 + 55 * np.tanh((picture[bright] - 200) / 55)
    noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    picture += noise * np.float32(rng.uniform(1.2, 3.6))
    return np.clip(picture, 0, 255).astype(np.uint8), label
