"""Buildings, garden walls and fences of a street scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from segdist.data.scenes.canvas import Canvas
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, Weather, jitter, mix, pick

_PLASTER: tuple[Colour, ...] = (
    (206, 184, 148), (214, 198, 176), (188, 150, 118), (196, 170, 158), (176, 172, 164), (222, 210, 186),
    (170, 140, 116),
)  # fmt: skip
_BRICK: tuple[Colour, ...] = ((148, 86, 66), (160, 100, 74), (128, 78, 64), (176, 120, 88))
_CONCRETE: tuple[Colour, ...] = ((150, 148, 144), (172, 168, 160), (132, 132, 134))
_ROOFS: tuple[Colour, ...] = ((142, 74, 54), (112, 68, 56), (84, 80, 82), (124, 92, 72))
_SHOPS: tuple[Colour, ...] = ((128, 44, 44), (44, 74, 62), (60, 58, 66), (150, 118, 66), (52, 66, 100))


@dataclass(frozen=True)
class Facade:
    """How the fronts of one building look. Lengths in metres."""

    colour: Colour
    trim: Colour
    storey: float
    bay: float
    window: tuple[float, float]
    """Share of the bay's width and of the storey's height that a window takes."""
    shop: Colour | None
    balconies: bool
    ribbons: bool
    """Whether windows run on from bay to bay, as in an office block."""


def _draw_facade(rng: np.random.Generator, house: bool) -> Facade:
    """A facade at random: plaster, brick, or an office block of concrete and glass."""
    kind = rng.random()
    shop = pick(rng, _SHOPS) if not house and rng.random() < 0.55 else None
    if kind < (0.7 if house else 0.5):
        colour, share = jitter(rng, pick(rng, _PLASTER), 0.10), (0.46, 0.56)
    elif kind < 0.78 or house:
        colour, share = jitter(rng, pick(rng, _BRICK), 0.12), (0.44, 0.54)
    else:
        colour, share = jitter(rng, pick(rng, _CONCRETE), 0.10), (0.84, 0.62)
    return Facade(
        colour=colour,
        trim=mix(colour, (236, 232, 224), float(rng.uniform(0.35, 0.8))),
        storey=float(rng.uniform(2.9, 3.5)),
        bay=float(rng.uniform(2.3, 3.2)),
        window=(share[0] * float(rng.uniform(0.9, 1.15)), share[1]),
        shop=shop,
        balconies=not house and rng.random() < 0.3,
        ribbons=share[0] > 0.8,
    )


@dataclass(frozen=True)
class Wall:
    """Where a wall stands: its foot begins at `origin` (x, z) and goes `length` metres `along` (a unit vector)."""

    origin: tuple[float, float]
    along: tuple[float, float]
    length: float
    height: float

    @property
    def facing(self) -> tuple[float, float, float]:
        """The unit normal of the side that is seen from the street."""
        return (0.0, 0.0, -1.0) if self.along[1] == 0 else (-float(np.sign(self.origin[0])), 0.0, 0.0)


class _Panels:
    """Rectangles on a wall (left, right, bottom, top in metres from its foot), painted all at once."""

    def __init__(self, wall: Wall, weather: Weather) -> None:
        self.wall = wall
        self.weather = weather
        self.glass = mix((58, 68, 80), weather.zenith, 0.22)
        self._rectangles: list[tuple[float, float, float, float]] = []
        self._colours: list[Colour] = []

    def put(self, sides: tuple[float, float], bottom: float, top: float, colour: Colour, glows: bool = False) -> None:
        """Add one; what glows is as bright at night as by day."""
        self._rectangles.append((*sides, bottom, top))
        self._colours.append(colour if glows else self.weather.lit(colour, self.wall.facing))

    def paint(self, canvas: Canvas) -> None:
        """Put them on the canvas in the order in which they were added."""
        spans, origin, along = np.array(self._rectangles), self.wall.origin, self.wall.along
        u, v = spans[:, [0, 0, 1, 1]], spans[:, [2, 3, 3, 2]]
        corners = np.stack([origin[0] + u * along[0], v, origin[1] + u * along[1]], axis=-1)
        canvas.faces(corners, self._colours)


def _dress(canvas: Canvas, rng: np.random.Generator, facade: Facade, wall: Wall) -> None:
    """Put storeys, windows, doors and a shop front on a wall."""
    panels = _Panels(wall, canvas.weather)
    bays = max(1, int(wall.length / facade.bay))
    for level in range(max(1, int(wall.height / facade.storey))):
        if level == 0 and facade.shop is not None:
            _put_shop(panels, rng, facade.shop, facade.storey, max(1, bays // 2))
        else:
            _put_storey(panels, rng, facade, level, bays)
    panels.put((0.0, wall.length), wall.height - 0.35, wall.height, mix(facade.trim, facade.colour, 0.3))
    panels.paint(canvas)


def _put_shop(panels: _Panels, rng: np.random.Generator, colour: Colour, storey: float, count: int) -> None:
    """A shop front with that many panes."""
    length = panels.wall.length
    panels.put((0.2, length - 0.2), 0.0, storey * 0.94, colour)
    for i in range(count):
        left = i * length / count
        lit = panels.weather.lamps_lit and rng.random() < 0.7
        pane: Colour = (236, 206, 140) if lit else jitter(rng, panels.glass, 0.35)
        panels.put((left + 0.5, left + length / count - 0.4), 0.45, storey * 0.70, pane, lit)


def _put_storey(panels: _Panels, rng: np.random.Generator, facade: Facade, level: int, bays: int) -> None:
    """One storey of windows; at street level one bay is the door."""
    length = panels.wall.length
    bay, floor = length / bays, level * facade.storey
    if level:
        panels.put((0.0, length), floor - 0.10, floor + 0.10, facade.trim)
    door = int(rng.integers(bays)) if level == 0 else -1
    width, tall = bay * facade.window[0], facade.storey * facade.window[1]
    for i in range(bays):
        middle, sill = (i + 0.5) * bay, floor + (facade.storey - tall) * 0.55
        if i == door:
            panels.put((middle - 0.65, middle + 0.65), 0.0, 2.35, facade.trim)
            panels.put((middle - 0.5, middle + 0.5), 0.0, 2.2, (82, 60, 46))
            continue
        lit = panels.weather.lamps_lit and rng.random() < 0.4
        pane = (240, 208, 140) if lit else jitter(rng, panels.glass, 0.45)
        sides = (middle - width / 2, middle + width / 2)
        if not facade.ribbons:
            frame = (middle - width / 2 - 0.14, middle + width / 2 + 0.14)
            panels.put(frame, sill - 0.16, sill + tall + 0.14, facade.trim)
        panels.put(sides, sill, sill + tall, pane, lit)
        if not facade.ribbons:
            panels.put((middle - 0.05, middle + 0.05), sill, sill + tall, facade.trim)
        if facade.balconies and level and i % 2:
            railing = mix(facade.trim, (70, 72, 78), 0.55)
            panels.put((middle - bay * 0.46, middle + bay * 0.46), floor - 0.05, floor + 0.95, railing)


def _paint_roof(
    canvas: Canvas,
    colour: Colour,
    eaves: tuple[float, float],
    ridge: tuple[float, float],
    near: float,
    far: float,
) -> None:
    """The side of a roof that faces the street, sloping up from `eaves` to `ridge` (x, y each)."""
    across, rise = ridge[0] - eaves[0], ridge[1] - eaves[1]
    length = math.hypot(across, rise)
    normal = (-float(np.sign(across)) * rise / length, abs(across) / length, 0.0)
    corners = [(*eaves, near), (*eaves, far), (*ridge, far), (*ridge, near)]
    canvas.face(np.array(corners), canvas.weather.lit(colour, normal), LabelId.BUILDING)


def paint_building(
    canvas: Canvas,
    rng: np.random.Generator,
    x: float,
    span: tuple[float, float],
    height: float,
    house: bool = False,
) -> None:
    """A building whose front stands at `x` and spans so many metres ahead, near to far; the sign of `x` is its side.

    Its gable end at `near`, which faces the camera, shows where the next building leaves it free.
    """
    weather, side, (near, far) = canvas.weather, float(np.sign(x)), span
    facade = _draw_facade(rng, house)
    depth = 9.0 if house else 14.0
    rise = depth * 0.42 if house else float(rng.uniform(0, 1)) ** 2 * 5
    back = x + side * (depth / 2 if house else rise * 0.45)
    roof = jitter(rng, pick(rng, _ROOFS), 0.15)
    if rise > 0.3 and not house:
        # From the street its foot is hidden by the wall, which comes after it.
        _paint_roof(canvas, roof, (x, height), (back, height + rise), near, far)
    wall = np.array([(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)], float)
    end = np.array(
        [(x, 0), (x, height), (back, height + rise), (x + side * depth, height), (x + side * depth, 0)], float
    )
    canvas.upright(end, weather.lit(facade.colour, (0, 0, -1)), near, LabelId.BUILDING)
    canvas.face(wall, weather.lit(facade.colour, (-side, 0, 0)), LabelId.BUILDING)
    if near < 130:
        _dress(canvas, rng, facade, Wall((x, near), (0.0, 1.0), far - near, height))
        if house or rng.random() < 0.7:
            _dress(canvas, rng, facade, Wall((x, near), (side, 0.0), depth, height))
    if house:
        overhang = 0.35
        foot = (x - side * overhang, height - overhang * rise / abs(back - x))
        _paint_roof(canvas, roof, foot, (back, height + rise), near, far)
    if house and rng.random() < 0.7:
        stack = np.array(
            [
                (back, height + rise - 1),
                (back, height + rise + 0.8),
                (back + 0.7, height + rise + 0.8),
                (back + 0.7, height + rise - 1),
            ]
        )
        canvas.upright(stack, weather.lit((132, 84, 68), (0, 0, -1)), near + 2, LabelId.BUILDING)


def paint_street_end(canvas: Canvas, rng: np.random.Generator, z: float) -> None:
    """A row of buildings across the street at `z` metres ahead, as where it meets another street."""
    x = -60.0 + float(rng.uniform(0, 10))
    while x < 60:
        width, height = float(rng.uniform(10, 18)), float(rng.uniform(9, 17))
        facade = _draw_facade(rng, house=False)
        front = np.array([(x, 0), (x, height), (x + width, height), (x + width, 0)])
        canvas.upright(front, canvas.weather.lit(facade.colour, (0, 0, -1)), z, LabelId.BUILDING)
        if abs(x) < 30:
            _dress(canvas, rng, facade, Wall((x, z), (1.0, 0.0), width, height))
        x += width


def paint_garden_wall(
    canvas: Canvas, rng: np.random.Generator, x: float, near: float, far: float, height: float
) -> None:
    """A wall of stone or brick along the street at `x`, with a coping and joints."""
    weather, side = canvas.weather, float(np.sign(x))
    colour = jitter(rng, pick(rng, _BRICK + _CONCRETE), 0.12)
    canvas.face(
        np.array([(x, 0, near), (x, 0, far), (x, height, far), (x, height, near)], float),
        weather.lit(colour, (-side, 0, 0)),
        LabelId.WALL,
    )
    canvas.upright(
        np.array([(x, 0), (x, height), (x + side * 0.35, height), (x + side * 0.35, 0)]),
        weather.lit(colour, (0, 0, -1)),
        near,
        LabelId.WALL,
    )
    courses = np.arange(0.35, height - 0.15, 0.4)
    joints = np.array([[(x, y, near), (x, y, far), (x, y + 0.05, far), (x, y + 0.05, near)] for y in courses])
    canvas.faces(joints, [weather.lit(mix(colour, (60, 56, 52), 0.4), (-side, 0, 0))] * len(joints))
    cope = [(x, height, near), (x, height, far), (x, height + 0.12, far), (x, height + 0.12, near)]
    canvas.face(np.array(cope), weather.lit(mix(colour, (220, 216, 208), 0.5), (0, 1, 0)), LabelId.WALL)


def paint_fence(canvas: Canvas, rng: np.random.Generator, x: float, near: float, far: float, height: float) -> None:
    """A fence of boards along the street at `x`; the boards stand close, so all of it is fence."""
    weather, side = canvas.weather, float(np.sign(x))
    colour = jitter(rng, pick(rng, ((150, 116, 82), (196, 192, 184), (92, 84, 78), (84, 104, 88))), 0.14)
    lit = weather.lit(colour, (-side, 0, 0))
    canvas.face(
        np.array([(x, 0.05, near), (x, 0.05, far), (x, height, far), (x, height, near)], float),
        lit,
        LabelId.FENCE,
    )
    dark = mix(lit, (26, 26, 28), 0.6)
    starts = np.arange(near + 0.25, far, max(0.32, (far - near) / 60))
    gaps = np.array([[(x, 0.1, z), (x, 0.1, z + 0.08), (x, height, z + 0.08), (x, height, z)] for z in starts])
    canvas.faces(gaps, [dark] * len(gaps))
    for y in (height * 0.3, height * 0.8):
        rail = np.array([(x, y, near), (x, y, far), (x, y + 0.09, far), (x, y + 0.09, near)])
        canvas.face(rail, mix(lit, (255, 255, 255), 0.15))
