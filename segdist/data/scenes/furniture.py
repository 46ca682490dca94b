"""Street furniture of a scene: poles, street lamps, traffic lights, traffic signs, and static boxes."""

from __future__ import annotations

import numpy as np

from segdist.data.scenes.canvas import Canvas, Floats
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, jitter, mix, pick

_METAL: tuple[Colour, ...] = ((124, 128, 130), (100, 106, 106), (74, 84, 80), (140, 142, 140))
_RED: Colour = (204, 24, 32)
_BLUE: Colour = (24, 84, 186)
_YELLOW: Colour = (246, 198, 24)
_PAPER: Colour = (244, 244, 240)
_INK: Colour = (24, 24, 28)
_FRONT = (0.0, 0.25, -0.97)


def _ring(x: float, y: float, radius: float, corners: int = 20, turn: float = 0.0) -> Floats:
    """Outline (corners, 2) of a regular polygon around (x, y)."""
    angles = np.linspace(0, 2 * np.pi, corners + 1)[:-1] + turn
    return np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)])


def _slab(left: float, right: float, bottom: float, top: float) -> Floats:
    """Outline (4, 2) of a rectangle."""
    return np.array([(left, bottom), (left, top), (right, top), (right, bottom)])


def paint_pole(canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float, width: float) -> None:
    """A round pole of `height` and `width` metres: lighter to the sun, darker away from it."""
    weather = canvas.weather
    metal = jitter(rng, pick(rng, _METAL), 0.14)
    canvas.ground_shadow(
        np.column_stack([_ring(x, z, width * 1.5, 8)[:, 0], np.zeros(8), _ring(x, z, width * 1.5, 8)[:, 1]]),
        0.4,
    )
    bright, dark = weather.lit(metal, (0.0, 0.4, -0.9)), weather.lit(mix(metal, (0, 0, 0), 0.45), _FRONT)
    canvas.upright(_slab(x - width / 2, x + width / 2, 0.0, height), bright, z, LabelId.POLE)
    canvas.upright(_slab(x - width * 0.8, x + width * 0.8, 0.0, 0.35), dark, z, LabelId.POLE)
    side = -1.0 if weather.sun[0] > 0 else 1.0
    edges = sorted((x + side * width / 2, x + side * width * 0.12))
    canvas.upright(_slab(edges[0], edges[1], 0.35, height), dark, z)


def paint_street_lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A tall lamp post whose arm reaches over the road."""
    height, reach = float(rng.uniform(5.5, 8.5)), -float(np.sign(x)) * float(rng.uniform(0.8, 2.2))
    paint_pole(canvas, rng, x, z, height, float(rng.uniform(0.12, 0.16)))
    metal = canvas.weather.lit((108, 112, 112), _FRONT)
    ends = np.array(
        [
            [(x, height - 0.1, z), (x + reach, height + 0.25, z)],
            [(x + reach, height + 0.25, z), (x + reach * 1.35, height + 0.2, z)],
        ]
    )
    canvas.capsules(ends, np.array([[0.06, 0.05], [0.10, 0.08]]), [metal, mix(metal, (40, 40, 40), 0.4)], LabelId.POLE)


def _paint_light_box(canvas: Canvas, rng: np.random.Generator, x: float, y: float, z: float, lit: int) -> None:
    """A three-lamp box whose middle is at height `y`; `lit` is 0 for red, 1 amber, 2 green."""
    half, tall, weather = 0.19, 0.54, canvas.weather
    if rng.random() < 0.45:
        plate = _PAPER if rng.random() < 0.6 else _INK
        canvas.upright(
            _slab(x - half * 1.5, x + half * 1.5, y - tall * 1.16, y + tall * 1.16),
            weather.lit(plate, _FRONT),
            z,
            LabelId.TRAFFIC_LIGHT,
        )
    canvas.upright(_slab(x - half, x + half, y - tall, y + tall), (24, 28, 28), z, LabelId.TRAFFIC_LIGHT)
    shining: tuple[Colour, ...] = ((255, 46, 36), (255, 184, 40), (40, 240, 140))
    asleep: tuple[Colour, ...] = ((72, 22, 22), (70, 54, 22), (20, 58, 42))
    for i in range(3):
        level = y + tall * (0.64 - 0.64 * i)
        hue = shining[i] if i == lit else asleep[i]
        canvas.upright(_ring(x, level, half * 0.80, 14), hue, z, LabelId.TRAFFIC_LIGHT)
        if i == lit:
            canvas.upright(_ring(x, level, half * 0.42, 10), mix(hue, (255, 255, 255), 0.6), z)
            glow = canvas.camera.project(np.column_stack([_ring(x, level, half * 1.7, 14), np.full(14, z)]))
            canvas.blend(glow, hue, 0.22, blur=0.06 * canvas.camera.focal / z)
        visor = np.array(
            [
                (x - half * 0.9, level + half * 0.45),
                (x - half * 0.5, level + half * 0.98),
                (x + half * 0.5, level + half * 0.98),
                (x + half * 0.9, level + half * 0.45),
            ]
        )
        canvas.upright(visor, (12, 14, 14), z)


def paint_traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, overhead: bool) -> None:
    """A pole with a traffic light at its head, and a second one hung over the road when `overhead`."""
    lit = int(pick(rng, (0, 0, 1, 2, 2)))
    side = -float(np.sign(x))
    if overhead:
        height, reach = float(rng.uniform(4.9, 5.6)), side * float(rng.uniform(2.6, 4.2))
        paint_pole(canvas, rng, x, z, height, 0.2)
        arm = np.array([[(x, height - 0.15, z), (x + reach, height + 0.05, z)]])
        canvas.capsules(arm, np.array([[0.09, 0.06]]), [canvas.weather.lit((120, 124, 124), _FRONT)], LabelId.POLE)
        _paint_light_box(canvas, rng, x + reach, height - 0.5, z, lit)
    else:
        paint_pole(canvas, rng, x, z, float(rng.uniform(3.1, 3.5)), 0.16)
    _paint_light_box(canvas, rng, x + side * 0.08, 2.75, z, lit)


def _paint_sign_face(canvas: Canvas, rng: np.random.Generator, x: float, y: float, z: float, size: float) -> None:
    """One sign of `size` metres (half its height) around (x, y): warning, order, hint, stop or priority."""
    weather = canvas.weather

    def put(outline: Floats, colour: Colour, label: LabelId | None = None) -> None:
        canvas.upright(outline, weather.lit(colour, _FRONT), z, label)

    kind, sign = int(rng.integers(7)), LabelId.TRAFFIC_SIGN
    if kind == 0:  # speed limit or ban: red ring
        put(_ring(x, y, size), _RED, sign)
        put(_ring(x, y, size * 0.74), _PAPER)
        for shift in (-0.24, 0.24):
            put(_ring(x + shift * size, y, size * 0.24, 10), _INK)
            put(_ring(x + shift * size, y, size * 0.11, 8), _PAPER)
    elif kind == 1:  # warning triangle
        put(_ring(x, y - size * 0.12, size * 1.15, 3, np.pi / 2), _RED, sign)
        put(_ring(x, y - size * 0.12, size * 0.72, 3, np.pi / 2), _PAPER)
        put(_slab(x - size * 0.08, x + size * 0.08, y - size * 0.3, y + size * 0.28), _INK)
    elif kind == 2:  # mandatory: blue disc with an arrow
        put(_ring(x, y, size), _PAPER, sign)
        put(_ring(x, y, size * 0.92), _BLUE)
        put(_slab(x - size * 0.13, x + size * 0.13, y - size * 0.6, y + size * 0.2), _PAPER)
        put(_ring(x, y + size * 0.28, size * 0.44, 3, np.pi / 2), _PAPER)
    elif kind == 3:  # stop
        put(_ring(x, y, size * 1.05, 8, np.pi / 8), _PAPER, sign)
        put(_ring(x, y, size * 0.95, 8, np.pi / 8), _RED)
        put(_slab(x - size * 0.62, x + size * 0.62, y - size * 0.17, y + size * 0.17), _PAPER)
    elif kind == 4:  # priority road: yellow diamond
        put(_ring(x, y, size * 1.12, 4), _PAPER, sign)
        put(_ring(x, y, size * 0.84, 4), _YELLOW)
    elif kind == 5:  # parking or crossing: blue square
        put(_slab(x - size * 0.9, x + size * 0.9, y - size * 0.9, y + size * 0.9), _PAPER, sign)
        put(_slab(x - size * 0.82, x + size * 0.82, y - size * 0.82, y + size * 0.82), _BLUE)
        put(_ring(x, y - size * 0.1, size * 0.62, 3, np.pi / 2), _PAPER)
    else:  # direction board
        board = _YELLOW if rng.random() < 0.5 else _BLUE
        text = _INK if board is _YELLOW else _PAPER
        put(_slab(x - size * 1.6, x + size * 1.6, y - size * 0.75, y + size * 0.75), _PAPER, sign)
        put(_slab(x - size * 1.52, x + size * 1.52, y - size * 0.67, y + size * 0.67), board)
        for level, reach in ((0.26, 0.5), (-0.26, 0.9)):
            put(
                _slab(x - size * 1.2, x + size * reach, y + size * (level - 0.11), y + size * (level + 0.11)),
                text,
            )


def paint_traffic_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A pole with one sign, or two, one above the other."""
    size, middle = float(rng.uniform(0.36, 0.46)), float(rng.uniform(2.2, 2.7))
    double = rng.random() < 0.4
    paint_pole(canvas, rng, x, z, middle + size * (2.6 if double else 1.0), 0.10)
    _paint_sign_face(canvas, rng, x, middle, z, size)
    if double:
        _paint_sign_face(canvas, rng, x, middle + 2.15 * size, z, size * 0.9)


def paint_static_box(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A thing of no class (label static): a litter bin or a switch cabinet."""
    width, height = (0.5, 0.9) if rng.random() < 0.5 else (1.0, 1.25)
    colour = jitter(rng, pick(rng, ((90, 98, 92), (148, 146, 138), (60, 70, 64))), 0.1)
    weather = canvas.weather
    canvas.upright(_slab(x - width / 2, x + width / 2, 0.0, height), weather.lit(colour, (0, 0, -1)), z, LabelId.STATIC)
    canvas.upright(
        _slab(x - width / 2, x + width / 2, height * 0.86, height),
        weather.lit(mix(colour, (20, 20, 20), 0.5), (0, 0, -1)),
        z,
    )
