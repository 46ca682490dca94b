"""Paints one procedural street scene: a picture and its label map."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segdist.data.scenes.canvas import Camera, Canvas, fractal_noise
from segdist.data.scenes.labels import RARE_GROUPS, SCENE_GROUPS, LabelId
from segdist.data.scenes.layout import plan_things
from segdist.data.scenes.plots import Step, plan_plots
from segdist.data.scenes.sensor import SUPERSAMPLING, develop
from segdist.data.scenes.street import (
    Street,
    draw_street,
    paint_ground,
    paint_sky,
    paint_skyline,
    paint_wall_shadows,
)
from segdist.data.scenes.weather import draw_weather, jitter, mix, pick

_ATTEMPTS = 40
"""How many streets are tried until all the groups asked for are seen; mostly the first shows them."""


@dataclass(frozen=True)
class PaintedScene:
    """One scene: `image` (H, W, 3) uint8 RGB and `label` (H, W) uint8 of Cityscapes label ids."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]

    def shows(self, group: str) -> bool:
        """Whether enough pixels of `group` are seen to learn from: 1 in 2600, and 4 at the least."""
        pixels = int(np.isin(self.label, SCENE_GROUPS[group]).sum())
        return pixels >= max(4, self.label.size // 2600)


def _draw_camera(rng: np.random.Generator, height: int, width: int, street: Street) -> Camera:
    """A camera behind the windscreen of a car in the lane right of the centre line."""
    scale = SUPERSAMPLING
    return Camera(
        width=width * scale,
        height=height * scale,
        focal=width * scale * float(rng.uniform(1.02, 1.18)),
        centre=width * scale * (0.5 + float(np.clip(rng.normal(0.0, 0.05), -0.11, 0.11))),
        horizon=height * scale * (0.43 + float(np.clip(rng.normal(0.0, 0.025), -0.06, 0.06))),
        eye=float(rng.uniform(1.2, 1.5)),
        lateral=street.lane * 0.5 + float(rng.uniform(-0.4, 0.5)),
        curvature=float(np.clip(rng.normal(0.0, 0.0010), -0.0025, 0.0025)),
    )


def _paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """The car's own bonnet along the bottom edge (label ego vehicle), with the sky's shine on it."""
    width, height = canvas.camera.width, canvas.camera.height
    rise, arch = height * float(rng.uniform(0.035, 0.08)), height * float(rng.uniform(0.01, 0.03))
    paint = jitter(rng, pick(rng, ((36, 38, 42), (70, 74, 80), (150, 152, 156), (30, 44, 72), (84, 24, 26))), 0.1)
    weather = canvas.weather
    base = weather.lit(paint, (0.0, 0.9, 0.3))
    x = np.linspace(0, width, 33)
    edge = height - rise - arch * (1 - (2 * x / width - 1) ** 2)
    for share, shine in ((0.0, 0.34), (0.10, 0.22), (0.3, 0.12), (0.6, 0.05)):
        top = edge + (height - edge) * share
        outline = np.concatenate([np.column_stack([x, top]), [(width, height), (0, height)]])
        canvas.fill(outline, mix(base, weather.haze, shine), 0.0, LabelId.EGO_VEHICLE)


def _paint_border(rng: np.random.Generator, scene: PaintedScene) -> None:
    """Blacken a thin unlabeled frame, as rectifying a picture leaves it; in place."""
    height, width = scene.label.shape
    left, right = (int(rng.integers(0, max(2, width // 100))) for _ in range(2))
    for columns in (slice(0, left), slice(width - right, width)):
        scene.label[:, columns] = LabelId.UNLABELED
        scene.image[:, columns] //= 5
    top = int(rng.integers(0, max(2, height // 100)))
    scene.label[:top] = LabelId.UNLABELED
    scene.image[:top] //= 5


def _paint_once(rng: np.random.Generator, height: int, width: int, groups: Collection[str]) -> PaintedScene:
    """Draw a street, plan it and paint it from far to near."""
    street, weather, noise = draw_street(rng), draw_weather(rng), fractal_noise(rng)
    camera = _draw_camera(rng, height, width, street)
    canvas = Canvas(camera, weather, noise)
    plots = plan_plots(rng, street)
    things = plan_things(rng, camera, street, groups)
    paint_sky(canvas, rng)
    paint_skyline(canvas, rng)
    paint_ground(canvas, rng, street)
    paint_wall_shadows(canvas, street, (11.0 * (street.plot[0] == "terrace"), 11.0 * (street.plot[1] == "terrace")))
    steps: list[Step] = plots + [(thing.z - thing.half_length, thing.paint) for thing in things]
    for _, paint in sorted(steps, key=lambda step: -step[0]):
        paint(canvas, rng)
    _paint_bonnet(canvas, rng)
    scene = PaintedScene(*develop(canvas, rng))
    if rng.random() < 0.3:
        _paint_border(rng, scene)
    return scene


def paint_scene(
    rng: np.random.Generator, height: int, width: int, groups: Collection[str] = RARE_GROUPS
) -> PaintedScene:
    """Paint a street scene of `height` x `width` pixels from what `rng` draws, and from nothing else.

    Road, pavement, building, pole, vegetation, sky and car are in every scene, and so is each of `groups`
    (names of SCENE_GROUPS). Further groups may be in it by chance.

    Raises RuntimeError if no street shows all the groups, which no known size and seed brings about.
    """
    needed = [name for name in SCENE_GROUPS if name not in RARE_GROUPS or name in groups]
    for _ in range(_ATTEMPTS):
        scene = _paint_once(rng, height, width, groups)
        if all(scene.shows(name) for name in needed):
            return scene
    missing = ", ".join(name for name in needed if not scene.shows(name))
    raise RuntimeError(
        f"no street of {height}x{width} pixels shows every group after {_ATTEMPTS} tries "
        f"(last missing: {missing}); use a larger size"
    )
