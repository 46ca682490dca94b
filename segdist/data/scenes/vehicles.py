"""Cars, trucks, buses and trams of a street scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segdist.data.scenes.bodies import GLASS, Body, Pose, paint_body, paint_undercarriage, put_wheels
from segdist.data.scenes.canvas import Canvas
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, jitter, mix, pick

_PAINTS: tuple[Colour, ...] = (
    (208, 210, 212), (168, 172, 176), (44, 46, 50), (92, 96, 102), (150, 34, 32), (36, 62, 118),
    (232, 232, 228), (28, 30, 34), (62, 84, 78), (120, 104, 84),
)  # fmt: skip


_Outline = list[tuple[float, float]]


@dataclass(frozen=True)
class _CarShape:
    """A kind of car: its side view (u, y) in metres, as :class:`Body` has it, and the radius of its wheels."""

    profile: _Outline
    glazed: frozenset[int]
    windows: tuple[_Outline, ...]
    half_width: float
    lean: float
    wheel_radius: float


_SALOON = _CarShape(
    [(-2.2, 0.3), (-2.22, 0.92), (-1.55, 1.0), (-0.9, 1.42), (0.3, 1.45), (1.1, 0.97),
     (2.05, 0.82), (2.2, 0.62), (2.2, 0.28)],
    frozenset({2, 4}),
    (
        [(-1.32, 1.0), (-0.88, 1.35), (-0.28, 1.38), (-0.28, 1.0)],
        [(-0.2, 1.0), (-0.2, 1.38), (0.26, 1.38), (0.86, 1.0)],
    ),
    half_width=0.9, lean=0.28, wheel_radius=0.33,
)  # fmt: skip
_HATCHBACK = _CarShape(
    [(-1.95, 0.3), (-2.0, 0.98), (-1.6, 1.45), (0.3, 1.5), (1.05, 0.99), (1.85, 0.84), (2.0, 0.62), (2.0, 0.28)],
    frozenset({1, 3}),
    (
        [(-1.62, 1.0), (-1.45, 1.38), (-0.32, 1.42), (-0.32, 1.0)],
        [(-0.24, 1.0), (-0.24, 1.42), (0.26, 1.42), (0.84, 1.0)],
    ),
    half_width=0.9, lean=0.28, wheel_radius=0.33,
)  # fmt: skip
_OFF_ROADER = _CarShape(
    [(-2.2, 0.38), (-2.25, 1.1), (-1.95, 1.66), (0.3, 1.7), (1.0, 1.14), (2.05, 1.0), (2.25, 0.75), (2.25, 0.36)],
    frozenset({1, 3}),
    (
        [(-1.95, 1.14), (-1.8, 1.56), (-0.36, 1.6), (-0.36, 1.14)],
        [(-0.28, 1.14), (-0.28, 1.6), (0.24, 1.6), (0.82, 1.14)],
    ),
    half_width=0.96, lean=0.28, wheel_radius=0.37,
)  # fmt: skip
_VAN = _CarShape(
    [(-2.3, 0.36), (-2.34, 1.05), (-2.25, 1.9), (1.0, 1.95), (1.75, 1.15), (2.3, 0.95), (2.36, 0.62), (2.36, 0.34)],
    frozenset({1, 3}),
    ([(0.3, 1.16), (0.3, 1.7), (0.98, 1.7), (1.42, 1.16)],),
    half_width=0.96, lean=0.12, wheel_radius=0.37,
)  # fmt: skip
_CARS = (_SALOON, _HATCHBACK, _OFF_ROADER, _VAN)
_VAN_REAR_WINDOW: _Outline = [(-2.0, 1.16), (-2.0, 1.7), (0.1, 1.7), (0.1, 1.16)]


def _car_body(rng: np.random.Generator) -> tuple[Body, float]:
    """A saloon, hatchback, off-roader or van, and the radius of its wheels."""
    colour = jitter(rng, pick(rng, _PAINTS), 0.08)
    shape = _CARS[int(rng.integers(len(_CARS)))]
    windows = list(shape.windows)
    if shape is _VAN and rng.random() < 0.5:
        windows.append(_VAN_REAR_WINDOW)
    waist, bonnet, length = shape.profile[1][1], shape.profile[-2][1], shape.profile[-1][0]
    body = Body(shape.profile, set(shape.glazed), shape.half_width, waist, shape.lean, colour)
    seam = mix(colour, (20, 20, 22), 0.45)
    body.side = [(window, GLASS) for window in windows]
    body.side.append(([(-length, 0.28), (-length, 0.42), (length, 0.40), (length, 0.28)], seam))
    body.side.append(([(-0.26, 0.42), (-0.26, waist), (-0.22, waist), (-0.22, 0.42)], seam))
    put_wheels(body, shape.wheel_radius, (-length * 0.62, length * 0.62))
    body.rear = [
        (-0.96, 0.96, 0.3, 0.46, seam),
        (-0.97, -0.66, waist - 0.3, waist - 0.08, (196, 26, 24)),
        (0.66, 0.97, waist - 0.3, waist - 0.08, (196, 26, 24)),
        (-0.28, 0.28, 0.52, 0.64, (226, 226, 220)),
    ]
    body.front = [
        (-0.95, 0.95, 0.3, 0.42, seam),
        (-0.55, 0.55, 0.44, bonnet - 0.02, (30, 32, 36)),
        (-0.98, -0.57, bonnet - 0.2, bonnet - 0.01, seam),
        (0.57, 0.98, bonnet - 0.2, bonnet - 0.01, seam),
        (-0.96, -0.6, bonnet - 0.17, bonnet - 0.03, (250, 248, 234)),
        (0.6, 0.96, bonnet - 0.17, bonnet - 0.03, (250, 248, 234)),
        (-0.26, 0.26, 0.40, 0.51, (226, 226, 220)),
    ]
    return body, shape.wheel_radius


def paint_car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float) -> None:
    """A car whose middle stands at (x, z); `heading` in radians: 0 drives ahead, pi comes nearer."""
    body, radius = _car_body(rng)
    pose = Pose(x, z, heading)
    paint_undercarriage(canvas, pose, body.profile[-1][0], body.half_width, LabelId.CAR, radius)
    paint_body(canvas, pose, body, LabelId.CAR)


def _box(
    length: tuple[float, float], height: tuple[float, float], half_width: float, colour: Colour, slant: float = 0.0
) -> Body:
    """A box by where its `length` and `height` begin and end; `slant` metres is how far the windscreen leans back."""
    (rear, front), (foot, top) = length, height
    waist = foot + (top - foot) * 0.36
    profile = [(rear, foot), (rear, top), (front - slant, top), (front, waist), (front, foot)]
    return Body(profile, {2} if slant else set(), half_width, 99.0, 0.0, colour)


def _paint_truck(canvas: Canvas, rng: np.random.Generator, pose: Pose) -> None:
    """A lorry: a cab and a load box in a colour of its own."""
    length = float(rng.uniform(6.5, 9.5))
    load = jitter(rng, pick(rng, ((226, 226, 222), (46, 92, 158), (214, 132, 40), (62, 122, 82), (190, 186, 176))), 0.1)
    cab_colour = jitter(rng, pick(rng, ((220, 222, 222), (178, 42, 36), (40, 82, 150), (222, 170, 44))), 0.08)
    rear, front = -length / 2, length / 2
    cab = _box((front - 1.9, front), (0.5, 2.7), 1.15, cab_colour, 0.25)
    cab.side = [([(front - 1.3, 1.5), (front - 1.3, 2.3), (front - 0.35, 2.3), (front - 0.2, 1.5)], GLASS)]
    cab.front = [
        (-0.9, 0.9, 0.55, 0.8, (40, 40, 44)),
        (-0.95, -0.6, 0.8, 1.05, (250, 248, 234)),
        (0.6, 0.95, 0.8, 1.05, (250, 248, 234)),
    ]
    put_wheels(cab, 0.48, (front - 0.9,))
    box = _box((rear, front - 2.0), (0.9, 3.4), 1.25, load)
    box.profile = [(rear, 0.8), (rear, 3.4), (front - 2.0, 3.4), (front - 2.0, 0.8)]
    stripe = mix(load, pick(rng, ((180, 40, 36), (34, 60, 120), (40, 110, 70))), 0.8)
    box.side = [([(rear + 0.6, 1.6), (rear + 0.6, 2.5), (front - 2.8, 2.5), (front - 2.8, 1.6)], stripe)]
    box.side.append(([(rear, 0.6), (rear, 0.82), (front - 2.0, 0.82), (front - 2.0, 0.6)], (44, 44, 48)))
    put_wheels(box, 0.48, (rear + 1.2, rear + 2.3))
    box.rear = [
        (-0.94, -0.02, 0.95, 3.25, mix(load, (0, 0, 0), 0.10)),
        (0.02, 0.94, 0.95, 3.25, mix(load, (0, 0, 0), 0.10)),
        (-1.0, 1.0, 0.55, 0.82, (48, 48, 52)),
        (-0.98, -0.7, 0.6, 0.8, (206, 28, 24)),
        (0.7, 0.98, 0.6, 0.8, (206, 28, 24)),
    ]
    paint_undercarriage(canvas, pose, length / 2, 1.2, LabelId.TRUCK, 0.55)
    # The part that is farther away goes first.
    parts = sorted((cab, box), key=lambda part: -float(pose.world([(part.profile[0][0], 0, 0)])[0, 2]))
    for part in parts:
        paint_body(canvas, pose, part, LabelId.TRUCK)


def _paint_coach(canvas: Canvas, rng: np.random.Generator, pose: Pose, tram: bool) -> None:
    """A bus, or a tram when `tram`: a long box with a band of windows."""
    label = LabelId.TRAIN if tram else LabelId.BUS
    length, top = (float(rng.uniform(15, 20)), 3.5) if tram else (float(rng.uniform(9.5, 12)), 3.1)
    colours = (
        ((196, 44, 40), (232, 190, 60))
        if tram
        else ((226, 186, 50), (190, 52, 44), (62, 128, 84), (58, 104, 172), (228, 228, 222))
    )
    colour = jitter(rng, pick(rng, colours), 0.08)
    band = mix(colour, pick(rng, ((240, 240, 236), (50, 52, 60))), 0.75)
    rear, front = -length / 2, length / 2
    body = _box((rear, front), (0.35, top), 1.28, colour, 0.7 if tram else 0.2)
    body.side = [([(rear, 0.35), (rear, 0.7), (front, 0.7), (front, 0.35)], band)]
    body.side.append(
        ([(rear + 0.3, 1.35), (rear + 0.3, top - 0.6), (front - 0.5, top - 0.6), (front - 0.2, 1.35)], GLASS)
    )
    for u in np.arange(rear + 1.6, front - 1.2, 1.6):
        post = [
            (float(u), 1.35),
            (float(u), top - 0.6),
            (float(u) + 0.12, top - 0.6),
            (float(u) + 0.12, 1.35),
        ]
        body.side.append((post, band))
    for u in (rear + length * 0.3, front - 2.6):
        door = [(u, 0.5), (u, top - 0.7), (u + 1.2, top - 0.7), (u + 1.2, 0.5)]
        body.side.append((door, (58, 64, 72)))
    if not tram:
        put_wheels(body, 0.5, (rear + length * 0.24, front - length * 0.16))
    lamps: Colour = (250, 248, 234)
    board = (
        (-0.7, 0.7, top - 0.48, top - 0.14, (30, 28, 26)),
        (-0.5, 0.4, top - 0.40, top - 0.22, (244, 176, 40)),
    )
    body.front = [(-0.92, 0.92, 1.25, top - 0.55, GLASS), *board]
    body.front += [(-0.95, -0.6, 0.62, 0.9, lamps), (0.6, 0.95, 0.62, 0.9, lamps), (-1, 1, 0.35, 0.5, band)]
    body.rear = [(-0.85, 0.85, 1.5, top - 0.6, GLASS), *board]
    body.rear += [
        (-0.97, -0.78, 0.7, 1.3, (206, 28, 24)),
        (0.78, 0.97, 0.7, 1.3, (206, 28, 24)),
        (-1, 1, 0.35, 0.6, band),
    ]
    paint_undercarriage(canvas, pose, length / 2, 1.25, label, 0.4)
    paint_body(canvas, pose, body, label)


def paint_large_vehicle(
    canvas: Canvas, rng: np.random.Generator, x: float, z: float, heading: float, label: LabelId
) -> None:
    """A truck, bus or train (a tram), by `label`, whose middle stands at (x, z)."""
    pose = Pose(x, z, heading)
    if label is LabelId.TRUCK:
        _paint_truck(canvas, rng, pose)
    else:
        _paint_coach(canvas, rng, pose, tram=label is LabelId.TRAIN)
