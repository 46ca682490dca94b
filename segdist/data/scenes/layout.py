"""The plan of a street scene: which street it is, and what stands where before anything is painted."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np

from segdist.data.scenes.canvas import NEAREST, Camera, Canvas
from segdist.data.scenes.foliage import paint_tree
from segdist.data.scenes.furniture import (
    paint_static_box,
    paint_street_lamp,
    paint_traffic_light,
    paint_traffic_sign,
)
from segdist.data.scenes.labels import RARE_GROUPS, LabelId
from segdist.data.scenes.people import paint_person, paint_rider, paint_two_wheeler
from segdist.data.scenes.street import CROSSING_WIDTH, Street
from segdist.data.scenes.vehicles import paint_car, paint_large_vehicle
from segdist.data.scenes.weather import pick

Painter = Callable[[Canvas, np.random.Generator], None]


@dataclass(frozen=True)
class Thing:
    """Something planned to stand in the scene; lengths in metres."""

    x: float
    z: float
    half_width: float
    half_length: float
    low: float
    """Height over the ground at which the part that counts begins (a sign's face, not its pole)."""
    top: float
    paint: Painter

    def box(self, camera: Camera) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in canvas pixels, as far as they lie in the picture."""
        near = max(NEAREST, self.z - self.half_length)
        corners = np.array([(self.x - self.half_width, self.top, near), (self.x + self.half_width, self.low, near)])
        (left, top), (right, bottom) = camera.project(corners).tolist()
        return (
            max(0.0, left),
            max(0.0, top),
            min(float(camera.width), right),
            min(float(camera.height), bottom),
        )


def _visible_from(camera: Camera, x: float, half_width: float) -> float:
    """The distance from which all of a thing at `x` is inside the picture's sides."""
    offset = abs(x - camera.lateral) + half_width
    room = min(camera.centre, camera.width - camera.centre) * 0.95
    return offset * camera.focal / room


def _kerbside(
    rng: np.random.Generator, camera: Camera, street: Street, right: bool, spread: float
) -> tuple[float, float]:
    """A place (x, z) near the kerb, from where it comes into view to `spread` metres further."""
    x = street.side(right) * (street.road[right] + float(rng.uniform(0.4, 0.8)))
    start = max(8.0, _visible_from(camera, x, 0.7))
    return x, start + float(rng.uniform(0, 1)) ** 1.5 * spread


def _traffic_light(rng: np.random.Generator, camera: Camera, street: Street) -> Thing:
    right = bool(rng.random() < 0.7)
    x, z = _kerbside(rng, camera, street, right, 16.0)
    if street.crossing is not None and street.crossing - 5 > z - 6:
        z = max(street.crossing - 5, z)
    overhead = bool(rng.random() < 0.3)
    paint = partial(paint_traffic_light, x=x, z=z, overhead=overhead)
    return Thing(x, z, 0.35, 1.0, 2.2, 3.3, paint)


def _traffic_sign(rng: np.random.Generator, camera: Camera, street: Street) -> Thing:
    x, z = _kerbside(rng, camera, street, bool(rng.random() < 0.65), 18.0)
    return Thing(x, z, 0.5, 1.0, 1.8, 3.4, partial(paint_traffic_sign, x=x, z=z))


def _person(rng: np.random.Generator, camera: Camera, street: Street) -> Thing:
    right = bool(rng.random() < 0.55)
    sign = street.side(right)
    if rng.random() < 0.14:  # on the road, crossing it
        x, z = float(rng.uniform(-street.road[0], street.road[1])), float(rng.uniform(13, 32))
        if street.crossing is not None:
            z = street.crossing - float(rng.uniform(1.2, 3.4))
        heading = sign * math.pi / 2
    else:
        inner, outer = street.road[right] + street.verge[right] + 0.4, street.wall[right] - 0.4
        x = sign * float(rng.uniform(inner, max(inner + 0.3, outer)))
        start = max(8.0, _visible_from(camera, x, 0.4))
        z = start + float(rng.uniform(0, 1)) ** 1.7 * 30
        heading = float(rng.normal(0.0, 0.5)) + (math.pi if rng.random() < 0.5 else 0.0)
    return Thing(x, z, 0.35, 0.3, 0.2, 1.75, partial(paint_person, x=x, z=z, heading=heading))


def _rider(rng: np.random.Generator, camera: Camera, street: Street) -> Thing:
    right = bool(rng.random() < 0.65)
    motor = bool(rng.random() < 0.35)
    inset = (2.9 if street.parking[right] else 0.9) + float(rng.uniform(0, 0.5))
    x = street.side(right) * (street.road[right] - inset)
    start = max(9.0, _visible_from(camera, x, 0.6))
    z = start + float(rng.uniform(0, 1)) ** 1.4 * 16
    heading = (0.0 if right else math.pi) + float(rng.choice((-1, 1))) * float(rng.uniform(0.15, 0.75))
    paint = partial(paint_rider, x=x, z=z, heading=heading, motor=motor)
    return Thing(x, z, 0.55, 0.9, 0.3, 1.8, paint)


def _two_wheeler(rng: np.random.Generator, camera: Camera, street: Street) -> Thing:
    right, motor = bool(rng.random() < 0.6), bool(rng.random() < 0.35)
    x = street.side(right) * (street.road[right] + float(rng.uniform(0.7, 1.6)))
    start = max(8.0, _visible_from(camera, x, 0.9))
    z = start + float(rng.uniform(0, 1)) ** 1.4 * 16
    heading = float(rng.uniform(0.5, 2.6))
    paint = partial(paint_two_wheeler, x=x, z=z, heading=heading, motor=motor)
    return Thing(x, z, 0.9, 0.6, 0.0, 1.1, paint)


def _large_vehicle(rng: np.random.Generator, camera: Camera, street: Street) -> Thing:
    label = pick(rng, (LabelId.BUS, LabelId.TRUCK, LabelId.BUS, LabelId.TRUCK, LabelId.TRAIN))
    place = rng.random()
    if street.rails and rng.random() < 0.6:
        label = LabelId.TRAIN
    half = 9.0 if label is LabelId.TRAIN else 5.5
    if street.crossing is not None and place < 0.3 and street.crossing > 20:
        x, z = (
            float(rng.uniform(-4, 7)),
            street.crossing + CROSSING_WIDTH * (0.3 if rng.random() < 0.5 else 0.7),
        )
        heading = math.pi / 2 if rng.random() < 0.5 else -math.pi / 2
        paint = partial(paint_large_vehicle, x=x, z=z, heading=heading, label=label)
        return Thing(x, z, half, 1.4, 0.4, 3.2, paint)
    z = float(rng.uniform(22, 60)) + half
    if place < 0.72 or label is LabelId.TRAIN:
        x, heading = -street.lane * 0.5, math.pi
    else:
        x, heading, z = street.lane * 0.5, 0.0, z + 6
    paint = partial(paint_large_vehicle, x=x, z=z, heading=heading, label=label)
    return Thing(x, z, 1.3, half, 0.4, 3.2, paint)


_PROPOSE: dict[str, Callable[[np.random.Generator, Camera, Street], Thing]] = {
    "traffic light": _traffic_light,
    "traffic sign": _traffic_sign,
    "person": _person,
    "rider": _rider,
    "large vehicle": _large_vehicle,
    "two-wheeler": _two_wheeler,
}
_PRESENCE = {
    "traffic light": 0.6,
    "traffic sign": 0.75,
    "person": 0.85,
    "rider": 0.5,
    "large vehicle": 0.5,
    "two-wheeler": 0.55,
}
"""How likely a scene that is not asked for a group holds it."""
_MORE = {
    "traffic light": 0.8,
    "traffic sign": 1.1,
    "person": 7.0,
    "rider": 0.5,
    "large vehicle": 0.2,
    "two-wheeler": 0.9,
}
"""Mean number of further ones."""


def _car(x: float, z: float, heading: float) -> Thing:
    return Thing(x, z, 0.95, 2.3, 0.2, 1.5, partial(paint_car, x=x, z=z, heading=heading))


def _optional_things(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Parked cars, traffic, street lamps, trees in the pavement and static boxes."""
    things: list[Thing] = []
    for right in (False, True):
        sign, kerb = street.side(right), street.road[right]
        facing = 0.0 if right else math.pi
        if street.parking[right]:
            z = float(rng.uniform(5, 9))
            while z < 85:
                if rng.random() < 0.72:
                    x = sign * (kerb - 1.05 + float(rng.uniform(-0.1, 0.1)))
                    things.append(_car(x, z, facing + float(rng.normal(0, 0.02))))
                z += float(rng.uniform(5.2, 7.5))
        lanes = 2 if kerb - 2.2 * street.parking[right] > 1.7 * street.lane else 1
        for number in range(lanes):
            z = float(rng.uniform(11, 34)) if right and not number else float(rng.uniform(8, 24))
            while z < 110:
                if rng.random() < 0.5:
                    x = sign * (street.lane * (number + 0.5) + float(rng.uniform(-0.2, 0.2)))
                    things.append(_car(x, z, facing + float(rng.normal(0, 0.03))))
                z += float(rng.uniform(9, 26))
        z = float(rng.uniform(9, 26))
        while z < 95:
            x = sign * (kerb + float(rng.uniform(0.45, 0.7)))
            things.append(Thing(x, z, 0.2, 0.2, 0.0, 7.0, partial(paint_street_lamp, x=x, z=z)))
            z += float(rng.uniform(22, 38))
        if rng.random() < (0.6 if street.verge[right] else 0.55):
            z, tall = float(rng.uniform(6, 18)), float(rng.uniform(6.5, 11))
            while z < 100:
                x = sign * (kerb + max(1.0, street.verge[right] * 0.6))
                height = tall * float(rng.uniform(0.8, 1.2))
                paint = partial(paint_tree, x=x, z=z, height=height)
                things.append(Thing(x, z, height * 0.33, 0.4, height * 0.3, height, paint))
                z += float(rng.uniform(8, 16))
        if rng.random() < 0.3:
            x, z = sign * (kerb + street.verge[right] + 0.9), float(rng.uniform(13, 32))
            things.append(Thing(x, z, 0.5, 0.4, 0.0, 1.2, partial(paint_static_box, x=x, z=z)))
    if street.crossing is not None and rng.random() < 0.5:
        z = street.crossing + CROSSING_WIDTH * 0.4
        x = float(rng.uniform(-9, 9))
        things.append(Thing(x, z, 2.3, 0.95, 0.2, 1.5, partial(paint_car, x=x, z=z, heading=math.pi / 2)))
    return things


def _collide(first: Thing, second: Thing) -> bool:
    """Whether two things would stand in one another."""
    return (
        abs(first.x - second.x) < first.half_width + second.half_width
        and abs(first.z - second.z) < first.half_length + second.half_length
    )


def _hides(front: Thing, back: Thing, camera: Camera, limit: float) -> bool:
    """Whether `front`, the nearer, covers more than `limit` of what counts of `back`."""
    if front.z >= back.z:
        return False
    left, top, right, bottom = back.box(camera)
    other = front.box(camera)
    width = max(0.0, min(right, other[2]) - max(left, other[0]))
    height = max(0.0, min(bottom, other[3]) - max(top, other[1]))
    return width * height > limit * max(1.0, (right - left) * (bottom - top))


def plan_things(rng: np.random.Generator, camera: Camera, street: Street, groups: Collection[str]) -> list[Thing]:
    """Plan what stands on the street. Each of the `groups` asked for gets one that nothing else hides.

    The things come in no order; the painter sorts them from far to near.
    """
    pinned: list[Thing] = []
    asked = [name for name in RARE_GROUPS if name in groups or rng.random() < _PRESENCE[name]]
    for name in asked:
        for _ in range(30):
            thing = _PROPOSE[name](rng, camera, street)
            clash = any(
                _collide(thing, other) or _hides(thing, other, camera, 0.25) or _hides(other, thing, camera, 0.25)
                for other in pinned
            )
            if not clash:
                break
        pinned.append(thing)
    extra = [_PROPOSE[name](rng, camera, street) for name in asked for _ in range(int(rng.poisson(_MORE[name])))]
    placed = list(pinned)
    for thing in extra + _optional_things(rng, street):
        clear = not any(_collide(thing, other) for other in placed)
        if clear and not any(_hides(thing, other, camera, 0.35) for other in pinned):
            placed.append(thing)
    return placed
