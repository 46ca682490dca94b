"""Trees, bushes and hedges of a street scene."""

from __future__ import annotations

import numpy as np

from segdist.data.scenes.canvas import Canvas
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, jitter, pick

_GREENS: tuple[Colour, ...] = (
    (74, 108, 44),
    (92, 120, 50),
    (62, 96, 50),
    (106, 124, 58),
    (84, 112, 66),
    (122, 122, 48),
)
_BARK: Colour = (92, 76, 62)


def _paint_crown(
    canvas: Canvas,
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    radii: tuple[float, float],
    colour: Colour,
    cone: bool = False,
) -> None:
    """A mass of leaves around `centre` (x, y, z) with `radii` (across, up) in metres; never below ground."""
    camera, weather = canvas.camera, canvas.weather
    corners = np.array(
        [
            (centre[0] - radii[0], centre[1] + radii[1], centre[2]),
            (centre[0] + radii[0], centre[1] - radii[1], centre[2]),
        ]
    )
    box = camera.project(corners).ravel()
    if box[2] < 0 or box[0] > camera.width or box[3] < 0 or box[1] > camera.height:
        return
    cells = int(np.clip((box[2] - box[0]) / 4.5, 8, 80))
    across = np.linspace(-1, 1, cells, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, cells, dtype=np.float32)[:, None]
    offset = rng.integers(0, 256, 4)
    span = np.arange(cells) * 110 // cells
    ragged = canvas.noise[np.ix_((span + offset[0]) % 256, (span + offset[1]) % 256)]
    mottled = canvas.noise[np.ix_((span * 2 + offset[2]) % 256, (span * 2 + offset[3]) % 256)]
    if cone:
        solid = 1.0 - np.abs(across) / (0.06 + 0.47 * (down + 1.0)) + 0.25 * (ragged + mottled) - 0.1
        solid = np.where(down > 0.93, -1.0, solid)
    else:
        solid = 0.80 - across**2 - down**2 + 0.13 * ragged + 0.06 * mottled
    solid = np.where(centre[1] - down * radii[1] < 0.0, -1.0, solid)
    side = weather.sun[0] if weather.shadow > 0.3 else 0.0
    light = 0.80 + 0.16 * ragged + 0.17 * mottled + 0.30 * side * across - 0.26 * down
    gain = np.clip(light, 0.32, 1.55)[:, :, None]
    leaf = np.array(weather.hazed(weather.lit(colour, (0.0, 0.75, -0.66)), 0.0), np.float32) * gain
    fade = 1.0 - np.exp(-centre[2] / weather.visibility)
    texture = leaf + (np.array(weather.haze, np.float32) - leaf) * fade
    canvas.sprite(
        np.clip(texture, 0, 255).astype(np.uint8),
        np.clip(127.5 + solid * 500, 0, 255).astype(np.uint8),
        box,
        LabelId.VEGETATION,
    )


def paint_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float) -> None:
    """A tree of `height` metres: broad-leaved, slender or coniferous. Trunk and crown are vegetation.

    Nothing is drawn of one that stands outside the picture.
    """
    weather = canvas.weather
    around = canvas.camera.project(np.array([(x - height, 0.0, z), (x + height, 0.0, z)]))
    if around[1, 0] < 0 or around[0, 0] > canvas.camera.width:
        return
    colour = jitter(rng, pick(rng, _GREENS), 0.14)
    kind = rng.random()
    if weather.shadow > 0.3:
        turn = np.linspace(0, 2 * np.pi, 13)[:-1]
        reach = 0.30 * height
        drift = np.array([weather.sun[0], weather.sun[2]]) / max(0.35, weather.sun[1]) * -0.45 * height
        blob = np.column_stack([x + drift[0] + reach * np.cos(turn), 0 * turn, z + drift[1] + reach * np.sin(turn)])
        canvas.ground_shadow(blob, weather.shadow * 0.8)
    girth = 0.020 * height + 0.05
    trunk = np.array([[(x, 0, z), (x + 0.02 * height * rng.uniform(-1, 1), height * 0.55, z)]])
    bark = weather.lit(jitter(rng, _BARK, 0.2), (weather.sun[0] * 0.5, 0.2, -0.8))
    canvas.capsules(trunk, np.array([[girth, girth * 0.6]]), [bark], LabelId.VEGETATION)
    canvas.capsules(
        trunk + np.array([girth * 0.35, 0.0, 0.0]),
        np.array([[girth, girth]]) * 0.4,
        [(bark[0] * 1.2,) * 3],
        None,
    )
    if kind < 0.14:
        _paint_crown(canvas, rng, (x, height * 0.56, z), (height * 0.22, height * 0.46), (48, 78, 52), cone=True)
    elif kind < 0.26:
        _paint_crown(canvas, rng, (x, height * 0.60, z), (height * 0.17, height * 0.44), colour)
    else:
        spread = height * float(rng.uniform(0.27, 0.36))
        for lobe in range(3 if z < 60 else 2):
            side = (lobe - 1) * spread * 0.5 * (1 if rng.random() < 0.5 else -1)
            level = height * (0.60 + 0.08 * (lobe == 1) + 0.04 * rng.random())
            centre = (x + side * (lobe != 1), level, z - 0.2 * lobe)
            _paint_crown(canvas, rng, centre, (spread * 0.85, height * 0.30), jitter(rng, colour, 0.06))


def paint_bush(canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float) -> None:
    """A bush of `height` metres that stands on the ground."""
    colour = jitter(rng, pick(rng, _GREENS), 0.14)
    wide = height * float(rng.uniform(0.7, 1.3))
    _paint_crown(canvas, rng, (x, height * 0.42, z), (wide, height * 0.72), colour)


def paint_hedge(canvas: Canvas, rng: np.random.Generator, x: float, near: float, far: float, height: float) -> None:
    """A clipped hedge along the street at `x` from `near` to `far` metres ahead."""
    colour = jitter(rng, pick(rng, _GREENS), 0.14)
    wall = np.array([(x, 0, near), (x, 0, far), (x, height * 0.85, far), (x, height * 0.85, near)], float)
    base = canvas.weather.lit(colour, (-np.sign(x), 0.3, 0))
    canvas.face(wall, (base[0] * 0.72, base[1] * 0.72, base[2] * 0.72), LabelId.VEGETATION)
    step = max(1.1, (far - near) / 11)
    for z in np.arange(far - 0.4, near, -step):
        _paint_crown(canvas, rng, (x, height * 0.5, float(z)), (height * 0.75, height * 0.66), colour)
