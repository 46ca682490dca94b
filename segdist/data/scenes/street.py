"""The street itself: its cross-section, and how sky, ground, markings and shadows on it are painted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segdist.data.scenes.canvas import NEAREST, Canvas, Floats
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, jitter, mix, pick

_FAR = 260.0
_STEPS = np.geomspace(NEAREST, _FAR, 30)
_Lay = Callable[[Floats, Colour], None]
"""Fills an outline on the ground (N, 3) with a colour."""
_WHITE: Colour = (226, 226, 222)


@dataclass(frozen=True)
class Street:
    """Cross-section of a street, metres from the road's centre line; index 0 is left, 1 is right."""

    road: tuple[float, float]
    """Kerb of each side."""
    verge: tuple[float, float]
    """Width of the grass between kerb and pavement, 0 for none."""
    wall: tuple[float, float]
    """Where the pavement ends and plots begin."""
    plot: tuple[str, str]
    """What stands beyond the pavement: terrace, houses or park."""
    lane: float
    """Width of a lane."""
    parking: tuple[bool, bool]
    """Whether cars park along the kerb."""
    crossing: float | None
    """Where a crossroads begins (metres ahead), or None."""
    rails: bool
    """Whether tram rails lie left of the centre line."""

    def side(self, right: bool) -> float:
        """-1 for the left side, +1 for the right: the sign of x there."""
        return 1.0 if right else -1.0


CROSSING_WIDTH = 8.5
"""Width of the side road at a crossroads, metres along z."""


_PLOTS: tuple[tuple[str, str], ...] = (
    ("terrace", "terrace"),
    ("terrace", "terrace"),
    ("houses", "houses"),
    ("terrace", "park"),
    ("park", "terrace"),
    ("houses", "terrace"),
    ("terrace", "houses"),
    ("park", "houses"),
    ("houses", "park"),
)


def draw_street(rng: np.random.Generator) -> Street:
    """A street at random; never a park on both sides, so there is always a building."""
    plots = pick(rng, _PLOTS)
    lane = float(rng.uniform(3.0, 3.4))
    parking = (bool(rng.random() < 0.5), bool(rng.random() < 0.4))
    wide = bool(rng.random() < 0.3)
    road, verge, wall = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for i in (0, 1):
        road[i] = lane * (2 if wide else 1) + 0.5 + 2.2 * parking[i]
        green = 0.25 if plots[i] == "terrace" else 0.65
        verge[i] = float(rng.uniform(1.0, 2.2)) if rng.random() < green else 0.0
        wall[i] = road[i] + verge[i] + float(rng.uniform(2.2, 4.0))
    crossing = float(rng.uniform(15, 38)) if rng.random() < 0.45 else None
    return Street(
        road=(road[0], road[1]),
        verge=(verge[0], verge[1]),
        wall=(wall[0], wall[1]),
        plot=plots,
        lane=lane,
        parking=parking,
        crossing=crossing,
        rails=bool(rng.random() < 0.22),
    )


def _strip(left: float, right: float, near: float = NEAREST, far: float = _FAR) -> Floats:
    """Outline (N, 3) of the ground between two lines along the street, following its bend."""
    z = _STEPS[(near < _STEPS) & (far > _STEPS)]
    z = np.concatenate([[near], z, [far]])
    ahead = np.column_stack([np.full(len(z), left), np.zeros(len(z)), z])
    back = np.column_stack([np.full(len(z), right), np.zeros(len(z)), z])[::-1]
    return np.concatenate([ahead, back])


def _patch(left: float, right: float, near: float, far: float) -> Floats:
    """Corners (4, 3) of a rectangle on the ground."""
    return np.array([(left, 0, near), (left, 0, far), (right, 0, far), (right, 0, near)], float)


def paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the sky down to the horizon: a gradient, the sun's glow and clouds flattened by perspective."""
    camera, weather = canvas.camera, canvas.weather
    bottom = int(np.clip(camera.horizon + 2, 1, camera.height))
    rows, columns = max(2, bottom // 6), max(2, camera.width // 6)
    height = np.linspace(1, 0, rows, dtype=np.float32)[:, None, None]
    zenith, haze = np.array(weather.zenith, np.float32), np.array(weather.haze, np.float32)
    sky = haze + (zenith - haze) * height**0.7 * np.ones((1, columns, 1), np.float32)
    # A cloud layer at one height: the lower in the picture, the denser its pattern lies.
    depth = 70.0 / (height[:, :, 0] + 0.28)
    shift = rng.integers(0, 256, 2)
    across = (np.linspace(-0.55, 0.55, columns)[None, :] * depth * 1.4 + shift[0]).astype(int) % 256
    pattern = canvas.noise[(depth + shift[1]).astype(int) % 256, across]
    threshold = 2.2 - 3.2 * weather.clouds
    cloud = np.clip((pattern - threshold) * 0.55, 0, 1)[:, :, None] * np.clip(height * 3 + 0.25, 0, 1)
    shade = np.clip(1.04 - 0.10 * pattern, 0.74, 1.08)[:, :, None]
    white = (0.45 * haze + 0.55 * 250.0) * shade * min(1.0, weather.ambient[1] + 0.28)
    sky += (white - sky) * cloud * 0.9
    if weather.sun[2] > 0.2 and weather.shadow > 0.3:
        column = 0.5 + 1.1 * weather.sun[0] / weather.sun[2]
        x = np.linspace(0, 1, columns, dtype=np.float32)[None, :, None]
        glow = np.exp(-(((x - column) * 2.2) ** 2) - (height * 1.3 - 0.6) ** 2)
        sky += glow * np.array([60, 52, 36], np.float32)
    small = Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8))
    size = (camera.width, bottom)
    canvas.image.paste(small.resize(size, Image.Resampling.BICUBIC), (0, 0))
    canvas.label.paste(int(LabelId.SKY), (0, 0, *size))


def paint_skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Stand hazy blocks and a line of trees at the horizon, where the street ends."""
    camera, weather = canvas.camera, canvas.weather
    unit = camera.height / 100.0
    x = -10 * unit
    while x < camera.width:
        width, height = float(rng.uniform(5, 16)) * unit, float(rng.uniform(1.5, 8)) * unit
        if rng.random() < 0.6:
            base, top = camera.horizon + unit, camera.horizon - height
            block = np.array([(x, base), (x, top), (x + width, top), (x + width, base)])
            grey = jitter(rng, (158, 146, 136), 0.2)
            canvas.fill(block, weather.lit(grey, (0, 0, -1)), 150.0, LabelId.BUILDING)
        x += width * 0.8
    columns = np.arange(0, camera.width + 4, 4)
    start = int(rng.integers(256))
    bumps = canvas.noise[start, (columns // 3) % 256] + 0.6 * canvas.noise[start, (columns * 2 // 3) % 256]
    crowns = camera.horizon - unit * np.clip(3.5 + 1.6 * bumps, 0.4, 10)
    ridge = np.column_stack([columns, crowns])
    foot = np.array([(camera.width + 4, camera.horizon + unit), (0, camera.horizon + unit)])
    green = weather.lit(jitter(rng, (70, 98, 52), 0.2), (0, 0.5, -0.8))
    canvas.fill(np.concatenate([ridge, foot]), green, 130.0, LabelId.VEGETATION)


def paint_ground(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Lay plots, pavements, road and markings; the sensor module adds haze and grain of the ground."""
    camera, weather = canvas.camera, canvas.weather
    up = (0.0, 1.0, 0.0)
    asphalt = jitter(rng, mix((116, 116, 119), (90, 92, 99), rng.random()), 0.10)
    paving = jitter(rng, mix((178, 164, 150), (186, 154, 134), rng.random()), 0.08)
    grass = jitter(rng, mix((104, 126, 62), (136, 134, 76), rng.random()), 0.10)
    asphalt = mix(asphalt, (52, 55, 62), 0.7 * min(1.0, weather.wet * 2))

    def lay(outline: Floats, colour: Colour, label: LabelId | None = None) -> None:
        canvas.fill(camera.project(outline), weather.lit(colour, up), 0.0, label)

    lay(_strip(-400, 400), grass, LabelId.TERRAIN)
    for right in (False, True):
        sign, kerb, wall = street.side(right), street.road[right], street.wall[right]
        if street.plot[right] == "terrace":
            lay(_strip(sign * kerb, sign * (wall + 30)), paving, LabelId.SIDEWALK)
        edge = kerb + street.verge[right]
        lay(_strip(sign * edge, sign * wall), paving, LabelId.SIDEWALK)
        lay(_strip(sign * kerb, sign * (kerb + 0.22)), mix(paving, (205, 203, 198), 0.7), LabelId.SIDEWALK)
    lay(_strip(-street.road[0], street.road[1]), asphalt, LabelId.ROAD)
    if street.crossing is not None:
        near, far = street.crossing, street.crossing + CROSSING_WIDTH
        side_road = np.array([(-400, 0, near), (-400, 0, far), (400, 0, far), (400, 0, near)], float)
        # The side road is straight on the screen, whatever the bend: its ends lie far outside the picture.
        lay(side_road, asphalt, LabelId.ROAD)
    _paint_repairs(rng, street, asphalt, lay)
    if street.rails:
        for x in (-0.6, -2.04):
            lay(
                _strip(x - street.lane * 0.1, x + 0.1 - street.lane * 0.1),
                (126, 118, 112),
                LabelId.RAIL_TRACK,
            )
    _paint_markings(rng, street, lay)


def _paint_repairs(rng: np.random.Generator, street: Street, asphalt: Colour, lay: _Lay) -> None:
    """Darker and lighter patches, gutters along the kerbs, and manhole covers."""
    for right in (False, True):
        sign, kerb = street.side(right), street.road[right]
        lay(_strip(sign * (kerb - 0.09), sign * kerb), mix(asphalt, (30, 30, 32), 0.55))
        lay(_strip(sign * (kerb - 0.45), sign * (kerb - 0.09)), mix(asphalt, (150, 148, 144), 0.22))
    for _ in range(int(rng.integers(2, 7))):
        x, z = rng.uniform(-street.road[0] + 0.6, street.road[1] - 2.2), rng.uniform(4, 40)
        lay(_patch(x, x + rng.uniform(0.7, 2.0), z, z + rng.uniform(1.5, 10)), jitter(rng, asphalt, 0.14))
    for _ in range(int(rng.integers(1, 4))):
        x, z = rng.uniform(-street.road[0] + 0.6, street.road[1] - 1), rng.uniform(7, 30)
        turn = np.linspace(0, 2 * np.pi, 14)[:-1]
        cover = np.column_stack([x + 0.3 * np.cos(turn), 0 * turn, z + 0.3 * np.sin(turn)])
        lay(cover, mix(asphalt, (52, 50, 48), 0.45))


def _paint_markings(rng: np.random.Generator, street: Street, lay: _Lay) -> None:
    """Centre line, lane lines, edge lines, and stop line and zebra at a crossroads."""
    paint = mix(_WHITE, (150, 150, 150), float(rng.uniform(0, 0.45)))
    crossing = street.crossing
    gap = (crossing - 4.5, crossing + CROSSING_WIDTH + 4.5) if crossing is not None else (_FAR, _FAR)

    def dashes(x: float, length: float, period: float, width: float) -> None:
        for z in np.arange(rng.uniform(0, period) - period + NEAREST, 90, period):
            near, far = max(NEAREST, float(z)), float(z) + length
            if far > near and (far < gap[0] or near > gap[1]):
                lay(_strip(x - width / 2, x + width / 2, near, far), paint)

    def solid(x: float, width: float) -> None:
        lay(_strip(x - width / 2, x + width / 2, NEAREST, gap[0]), paint)
        if gap[1] < _FAR:
            lay(_strip(x - width / 2, x + width / 2, gap[1], _FAR), paint)

    if rng.random() < 0.3:
        solid(0.0, 0.14)
    else:
        dashes(0.0, 3.0, float(rng.uniform(6, 9)), 0.15)
    for right in (False, True):
        sign, kerb = street.side(right), street.road[right]
        inner = kerb - 2.2 if street.parking[right] else kerb
        if inner > 1.7 * street.lane:
            dashes(sign * street.lane, 3.0, 9.0, 0.13)
        if street.parking[right]:
            dashes(sign * inner, 0.8, 1.6, 0.11)
        elif rng.random() < 0.35:
            solid(sign * (kerb - 0.55), 0.12)
    if crossing is not None:
        lay(_patch(0.2, street.road[1] - 0.3, crossing - 4.9, crossing - 4.45), paint)
        for start in (crossing - 3.8, crossing + CROSSING_WIDTH + 0.8):
            for x in np.arange(-street.road[0] + 0.4, street.road[1] - 0.5, 1.0):
                lay(_patch(float(x), float(x) + 0.5, start, start + 3.0), paint)
    elif rng.random() < 0.3:
        x, z = street.lane * 0.5, float(rng.uniform(9, 16))
        lay(_patch(x - 0.08, x + 0.08, z, z + 2.6), paint)
        lay(np.array([(x - 0.34, 0, z + 2.4), (x, 0, z + 4.4), (x + 0.34, 0, z + 2.4)]), paint)


def paint_wall_shadows(canvas: Canvas, street: Street, heights: tuple[float, float]) -> None:
    """Cast the shadow of each side's row of buildings (`heights` in metres, 0 for none) on the street."""
    weather = canvas.weather
    for right in (False, True):
        sign = street.side(right)
        toward = weather.sun[0] * sign
        if heights[right] <= 0 or toward < 0.15 or weather.shadow < 0.3:
            continue
        reach = min(heights[right] * toward / weather.sun[1], street.wall[right] * 1.5)
        outline = _strip(sign * (street.wall[right] - reach), sign * (street.wall[right] + 3))
        canvas.blend(canvas.camera.project(outline), (18, 20, 32), weather.shadow * 0.8, blur=1.0)


GROUND: NDArray[np.bool_] = np.zeros(256, bool)
"""Which label values lie on the ground: GROUND[label map] is a mask."""
GROUND[[LabelId.ROAD, LabelId.SIDEWALK, LabelId.TERRAIN, LabelId.RAIL_TRACK]] = True
