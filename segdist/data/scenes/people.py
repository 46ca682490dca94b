"""Persons, riders and two-wheelers of a street scene, built of round-ended limbs."""

from __future__ import annotations

import math

import numpy as np

from segdist.data.scenes.canvas import Canvas, Floats
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, jitter, mix, pick

_SKIN: tuple[Colour, ...] = ((226, 180, 150), (206, 154, 122), (160, 112, 84), (112, 78, 60))
_HAIR: tuple[Colour, ...] = ((44, 32, 26), (24, 22, 22), (110, 78, 46), (168, 132, 78), (140, 136, 132))
_TOPS: tuple[Colour, ...] = (
    (36, 40, 52), (176, 40, 46), (40, 78, 156), (196, 176, 150), (116, 56, 122), (64, 116, 96),
    (214, 214, 216), (170, 104, 56),
)  # fmt: skip
_LEGS: tuple[Colour, ...] = ((38, 44, 66), (30, 30, 34), (84, 76, 66), (62, 78, 112), (52, 50, 52))
_VESTS: tuple[Colour, ...] = ((206, 240, 50), (255, 140, 30))
_HELMETS: tuple[Colour, ...] = ((236, 236, 232), (220, 40, 36), (36, 92, 190), (246, 200, 40), (30, 30, 34))
_FRAMES: tuple[Colour, ...] = (
    (170, 34, 36),
    (30, 80, 150),
    (34, 120, 84),
    (40, 40, 44),
    (196, 196, 198),
    (210, 130, 40),
)

Point = tuple[float, float, float]
"""A point (ahead, right, up) of a figure's own frame, metres."""


class _Figure:
    """Limbs in a figure's own frame, painted from far to near once all are known."""

    def __init__(self, x: float, z: float, heading: float) -> None:
        self._place = np.array([x, 0.0, z])
        sine, cosine = math.sin(heading), math.cos(heading)
        self._turn = np.array([(sine, 0.0, cosine), (cosine, 0.0, -sine), (0.0, 1.0, 0.0)])
        self._limbs: list[tuple[Point, Point, float, float, Colour, float]] = []

    def world(self, points: list[Point]) -> Floats:
        """Points (N, 3) in world coordinates."""
        return np.asarray(points, float) @ self._turn + self._place

    def limb(self, start: Point, end: Point, thick: float, thin: float, colour: Colour, lift: float = 0.0) -> None:
        """Add a limb of radius `thick` at its start, `thin` at its end; `lift` metres bring it forward."""
        self._limbs.append((start, end, thick, thin, colour, lift))

    def paint(self, canvas: Canvas, label: LabelId) -> None:
        """Paint the limbs and forget them."""
        ends = np.array([limb[:2] for limb in self._limbs]) @ self._turn + self._place
        order = np.argsort(-ends[..., 2].mean(axis=1) + [limb[5] for limb in self._limbs], kind="stable")
        radii = np.array([limb[2:4] for limb in self._limbs])
        weather = canvas.weather
        facing = (0.35 * float(np.sign(weather.sun[0])), 0.45, -0.82)
        colours = [weather.lit(self._limbs[i][4], facing) for i in order]
        canvas.capsules(ends[order], radii[order], colours, label)
        self._limbs.clear()


def paint_person(canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float) -> None:
    """A person, grown-up or child, standing or walking at (x, z); `heading` in radians, 0 walks ahead."""
    tall = float(rng.uniform(1.58, 1.88)) if rng.random() < 0.86 else float(rng.uniform(1.05, 1.4))
    skin, hair = pick(rng, _SKIN), pick(rng, _HAIR)
    top, legs = jitter(rng, pick(rng, _TOPS), 0.15), jitter(rng, pick(rng, _LEGS), 0.15)
    sleeve = top if rng.random() < 0.75 else skin
    stride = float(rng.uniform(-0.22, 0.22)) * tall
    canvas.ground_shadow(_disc(x, z, 0.34), 0.45)
    figure = _Figure(x, z, heading)
    for side in (-1.0, 1.0):
        step = stride * side
        hip, knee = (
            (0.0, side * 0.045 * tall, 0.52 * tall),
            (step * 0.55 + 0.02, side * 0.05 * tall, 0.28 * tall),
        )
        foot = (step - 0.03 * (step < 0), side * 0.05 * tall, 0.035 * tall)
        figure.limb(hip, knee, 0.058 * tall, 0.042 * tall, legs)
        figure.limb(knee, foot, 0.042 * tall, 0.030 * tall, mix(legs, (0, 0, 0), 0.12))
        figure.limb(foot, (foot[0] + 0.07 * tall, foot[1], 0.02 * tall), 0.026 * tall, 0.020 * tall, (36, 32, 32))
        shoulder = (0.0, side * 0.105 * tall, 0.80 * tall)
        elbow = (-step * 0.35, side * 0.135 * tall, 0.63 * tall)
        hand = (-step * 0.6 + 0.06, side * 0.13 * tall, 0.48 * tall)
        figure.limb(shoulder, elbow, 0.036 * tall, 0.031 * tall, mix(sleeve, (0, 0, 0), 0.10))
        figure.limb(elbow, hand, 0.030 * tall, 0.024 * tall, mix(sleeve, (0, 0, 0), 0.16))
        figure.limb(hand, hand, 0.026 * tall, 0.026 * tall, skin)
        figure.limb(
            (0.0, side * 0.065 * tall, 0.785 * tall),
            (0.0, side * 0.035 * tall, 0.53 * tall),
            0.055 * tall,
            0.062 * tall,
            top,
        )
    figure.limb((0, 0, 0.78 * tall), (0, 0, 0.54 * tall), 0.075 * tall, 0.070 * tall, top, 0.05)
    if rng.random() < 0.28:
        hem = 0.30 if rng.random() < 0.5 else 0.40
        figure.limb((0, 0, 0.55 * tall), (0, 0, hem * tall), 0.075 * tall, 0.115 * tall, top, 0.12)
    figure.limb((0, 0, 0.84 * tall), (0, 0, 0.88 * tall), 0.030 * tall, 0.030 * tall, skin)
    figure.limb((0.01, 0, 0.915 * tall), (0.012, 0, 0.94 * tall), 0.058 * tall, 0.060 * tall, skin, 0.10)
    back = -0.035 * tall
    figure.limb((back, 0, 0.945 * tall), (back * 0.3, 0, 0.968 * tall), 0.058 * tall, 0.052 * tall, hair, 0.12)
    if rng.random() < 0.3:
        pack = jitter(rng, pick(rng, _TOPS), 0.2)
        figure.limb((-0.10 * tall, 0, 0.76 * tall), (-0.11 * tall, 0, 0.60 * tall), 0.075 * tall, 0.080 * tall, pack)
    elif rng.random() < 0.3:
        bag = jitter(rng, pick(rng, _TOPS), 0.2)
        figure.limb((0.02, 0.15 * tall, 0.45 * tall), (0.02, 0.15 * tall, 0.36 * tall), 0.05 * tall, 0.06 * tall, bag)
    figure.paint(canvas, LabelId.PERSON)


def _disc(x: float, z: float, radius: float) -> Floats:
    """Outline (N, 3) of a disc on the ground."""
    turn = np.linspace(0, 2 * np.pi, 11)[:-1]
    return np.column_stack([x + radius * np.cos(turn), np.zeros(10), z + radius * np.sin(turn)])


def _wheel(canvas: Canvas, figure: _Figure, hub: float, radius: float, tyre: float, label: LabelId) -> None:
    """A wheel seen at the figure's heading: tyre, and a translucent blur of spokes that counts as wheel."""
    turn = np.linspace(0, 2 * np.pi, 17)[:-1]
    rim = figure.world([(hub + radius * math.cos(a), 0.0, radius + radius * math.sin(a)) for a in turn])
    canvas.blend(canvas.camera.project(rim), (96, 98, 102), 0.5, label)
    following = np.roll(rim, -1, axis=0)
    ring = np.stack([rim, following], axis=1)
    canvas.capsules(ring, np.full((len(ring), 2), tyre), [(30, 30, 32)] * len(ring), label)
    spoke = np.stack([rim[:8:2], rim[8::2]], axis=1)
    canvas.capsules(spoke, np.full((len(spoke), 2), 0.008), [(150, 152, 156)] * len(spoke), label)


def _bicycle(canvas: Canvas, rng: np.random.Generator, figure: _Figure) -> None:
    """A bicycle: two wheels, a diamond frame, saddle and handlebars."""
    label, paint = LabelId.BICYCLE, pick(rng, _FRAMES)
    for hub in (-0.52, 0.52):
        _wheel(canvas, figure, hub, 0.34, 0.032, label)
    crank, seat, head = (-0.08, 0.0, 0.30), (-0.2, 0.0, 0.80), (0.36, 0.0, 0.84)
    for start, end in (
        (crank, seat),
        (crank, head),
        (seat, head),
        (crank, (-0.52, 0, 0.34)),
        (seat, (-0.52, 0, 0.34)),
        (head, (0.52, 0, 0.34)),
    ):
        figure.limb(start, end, 0.028, 0.028, paint)
    figure.limb(head, (0.34, 0.0, 1.0), 0.025, 0.025, (60, 60, 64))
    figure.limb((0.36, -0.28, 1.02), (0.36, 0.28, 1.02), 0.026, 0.026, (40, 40, 44))
    figure.limb((-0.32, 0, 0.88), (-0.10, 0, 0.88), 0.055, 0.035, (32, 30, 30))
    if rng.random() < 0.35:
        figure.limb((0.50, -0.12, 0.88), (0.50, 0.12, 0.88), 0.13, 0.13, (120, 92, 62))
    figure.paint(canvas, label)


def _motorcycle(canvas: Canvas, rng: np.random.Generator, figure: _Figure) -> None:
    """A motorcycle or scooter: thick tyres, an engine, a painted tank and fairing."""
    label, paint = LabelId.MOTORCYCLE, jitter(rng, pick(rng, _FRAMES), 0.1)
    for hub in (-0.66, 0.66):
        _wheel(canvas, figure, hub, 0.31, 0.075, label)
    figure.limb((-0.25, 0, 0.42), (0.25, 0, 0.42), 0.20, 0.18, (64, 64, 68))
    figure.limb((-0.85, 0, 0.78), (-0.1, 0, 0.74), 0.09, 0.12, (34, 32, 34))
    figure.limb((0.0, 0, 0.80), (0.42, 0, 0.84), 0.15, 0.14, paint)
    figure.limb((0.66, 0, 0.33), (0.42, 0, 0.98), 0.05, 0.05, (130, 132, 136))
    figure.limb((0.52, 0, 0.86), (0.60, 0, 0.98), 0.15, 0.12, paint)
    figure.limb((0.38, -0.36, 1.04), (0.38, 0.36, 1.04), 0.035, 0.035, (40, 40, 44))
    figure.limb((0.66, 0, 0.90), (0.68, 0, 0.90), 0.08, 0.08, (248, 246, 226), 0.05)
    figure.limb((-0.90, 0, 0.70), (-0.90, 0, 0.72), 0.07, 0.07, (206, 28, 24), 0.05)
    figure.limb((-0.7, 0.14, 0.32), (-0.1, 0.16, 0.30), 0.06, 0.05, (168, 168, 172))
    figure.paint(canvas, label)


def paint_two_wheeler(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float, motor: bool
) -> None:
    """A parked bicycle, or a motorcycle when `motor`, at (x, z)."""
    canvas.ground_shadow(_disc(x, z, 0.5), 0.35)
    figure = _Figure(x, z, heading)
    if motor:
        _motorcycle(canvas, rng, figure)
    else:
        _bicycle(canvas, rng, figure)


def paint_rider(canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float, motor: bool) -> None:
    """A rider on a bicycle, or on a motorcycle when `motor`; with a helmet, and often a bright vest."""
    paint_two_wheeler(canvas, rng, x, z, heading, motor)
    top = pick(rng, _VESTS) if rng.random() < 0.7 else jitter(rng, pick(rng, _TOPS), 0.15)
    legs, skin, helmet = jitter(rng, pick(rng, _LEGS), 0.15), pick(rng, _SKIN), pick(rng, _HELMETS)
    seat, lean = (0.82, 0.20) if motor else (0.93, 0.30)
    chest = (-0.2 + lean, 0.0, seat + 0.50)
    figure = _Figure(x, z, heading)
    for side in (-1.0, 1.0):
        hip, foot = (
            (-0.2, side * 0.10, seat),
            (-0.08 + 0.12 * side, side * 0.11, 0.26 - 0.10 * side * (not motor)),
        )
        knee = (0.20, side * (0.22 if motor else 0.13), seat - 0.30 - 0.10 * side * (not motor))
        figure.limb(hip, knee, 0.105, 0.075, legs)
        figure.limb(knee, foot, 0.072, 0.052, mix(legs, (0, 0, 0), 0.12))
        figure.limb(foot, (foot[0] + 0.13, foot[1], foot[2] - 0.02), 0.05, 0.04, (34, 32, 32))
        shoulder, elbow, hand = (
            (chest[0], side * 0.19, chest[2]),
            (0.14, side * 0.29, seat + 0.24),
            (0.36, side * 0.28, seat + 0.12),
        )
        figure.limb(shoulder, elbow, 0.068, 0.055, mix(top, (0, 0, 0), 0.12))
        figure.limb(elbow, hand, 0.055, 0.045, mix(top, (0, 0, 0), 0.18))
        figure.limb((-0.2, side * 0.07, seat + 0.03), (chest[0], side * 0.12, chest[2]), 0.12, 0.10, top)
    figure.limb((-0.2, 0, seat + 0.03), chest, 0.13, 0.14, top, 0.04)
    figure.limb(
        (-0.19, 0, seat + 0.14),
        (-0.2 + lean * 0.5, 0, seat + 0.28),
        0.10,
        0.10,
        mix(top, (255, 255, 255), 0.35),
        0.06,
    )
    head = (chest[0] + 0.10, 0.0, chest[2] + 0.26)
    figure.limb((head[0], 0, head[2] - 0.05), head, 0.085, 0.095, skin, 0.08)
    cap = (head[0] - 0.02, 0.0, head[2] + 0.05)
    figure.limb(cap, (cap[0] + 0.03, 0, cap[2] + 0.02), 0.135 if motor else 0.12, 0.11, helmet, 0.10)
    figure.paint(canvas, LabelId.RIDER)
