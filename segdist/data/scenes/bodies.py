"""Bodies of vehicles: side profiles drawn out to a width, painted from any heading."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segdist.data.scenes.canvas import Canvas, Floats
from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, mix

GLASS: Colour = (42, 50, 60)
_TYRE: Colour = (28, 28, 30)
_TURN = np.linspace(0, 2 * np.pi, 15)[:-1]


@dataclass
class Body:
    """One drawn-out part of a vehicle, in its own frame: u ahead, v to its right, y up; metres."""

    profile: list[tuple[float, float]]
    """Outline (u, y) from the rear's foot over the roof to the front's foot."""
    glazed: set[int]
    """Numbers of the profile's edges that are glass."""
    half_width: float
    waist: float
    """Height from which the sides lean inwards."""
    lean: float
    """How far they lean in, as a fraction per metre above the waist."""
    colour: Colour
    side: list[tuple[list[tuple[float, float]], Colour]] = field(default_factory=list)
    """Polygons (u, y) on both sides."""
    rear: list[tuple[float, float, float, float, Colour]] = field(default_factory=list)
    """Rectangles (left, right as fractions of the half width, bottom, top) on the rear."""
    front: list[tuple[float, float, float, float, Colour]] = field(default_factory=list)
    """Rectangles on the front, like `rear`."""

    def half(self, y: float) -> float:
        """Half of the width at height `y`."""
        return self.half_width * (1.0 - self.lean * max(0.0, y - self.waist))


class Pose:
    """Where a vehicle stands and which way it points; heading 0 drives ahead, pi comes towards the camera."""

    def __init__(self, x: float, z: float, heading: float) -> None:
        self.place = np.array([x, 0.0, z])
        sine, cosine = math.sin(heading), math.cos(heading)
        self.turn = np.array([(sine, 0.0, cosine), (cosine, 0.0, -sine), (0.0, 1.0, 0.0)])

    def world(self, local: Sequence[tuple[float, float, float]]) -> Floats:
        """Points (N, 3) given as (u, v, y) in world coordinates."""
        return np.asarray(local, float) @ self.turn + self.place


def _outward(corners: Floats, heart: Floats) -> tuple[float, float, float]:
    """Unit normal of the polygon `corners` (N, 3), on the side that looks away from `heart` (3,)."""
    middle = corners.mean(axis=0)
    one = corners - middle
    two = np.roll(one, -1, axis=0)
    across = float(np.sum(one[:, 1] * two[:, 2] - one[:, 2] * two[:, 1]))
    up = float(np.sum(one[:, 2] * two[:, 0] - one[:, 0] * two[:, 2]))
    ahead = float(np.sum(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]))
    way = middle - heart
    length = math.sqrt(across * across + up * up + ahead * ahead) + 1e-9
    if across * way[0] + up * way[1] + ahead * way[2] < 0:
        length = -length
    return across / length, up / length, ahead / length


def _paint_glass(canvas: Canvas, outline: Floats, body: Colour, glass: Colour, distance: float, label: LabelId) -> None:
    """A pane in a frame of the body's colour, with the sky in its upper part."""
    haze = canvas.weather.haze
    canvas.fill(outline, body, distance, label)
    pane = outline.mean(axis=0) + (outline - outline.mean(axis=0)) * 0.88
    canvas.fill(pane, mix(glass, haze, 0.10), distance)
    top, bottom = pane[:, 1].min(), pane[:, 1].max()
    pane[pane[:, 1] > pane[:, 1].mean(), 1] -= 0.45 * (bottom - top)
    canvas.fill(pane, mix(glass, haze, 0.30), distance)


def paint_body(canvas: Canvas, pose: Pose, body: Body, label: LabelId) -> None:
    """Paint the faces of `body` that look at the camera, far ones first, then what is fixed on them."""
    weather, camera = canvas.weather, canvas.camera
    # Seams, rims and the like are below a pixel on a vehicle far away.
    fine = float(pose.place[2]) < 70.0
    pieces: list[tuple[str, list[tuple[float, float, float]], Colour]] = []
    last = len(body.profile) - 2
    for i, ((u, y), (nu, ny)) in enumerate(zip(body.profile, body.profile[1:], strict=False)):
        w, nw = body.half(y), body.half(ny)
        name = "rear" if i == 0 else "front" if i == last else "top"
        colour = GLASS if i in body.glazed else body.colour
        pieces.append((name, [(u, -w, y), (u, w, y), (nu, nw, ny), (nu, -nw, ny)], colour))
    for sign, name in ((-1.0, "left"), (1.0, "right")):
        pieces.append((name, [(u, sign * body.half(y), y) for u, y in body.profile], body.colour))
    faces = len(pieces)
    for sign, name in ((-1.0, "left"), (1.0, "right")):
        for polygon, ink in body.side if fine else body.side[:2]:
            pieces.append((name, [(u, sign * (body.half(y) + 0.01), y) for u, y in polygon], ink))
    w = body.half_width
    for name, u, plates in (
        ("rear", body.profile[0][0] - 0.01, body.rear),
        ("front", body.profile[-1][0] + 0.01, body.front),
    ):
        for left, right, bottom, top, ink in plates:
            corners = [(u, left * w, bottom), (u, left * w, top), (u, right * w, top), (u, right * w, bottom)]
            pieces.append((name, corners, ink))

    seen = camera.seen(pose.world([point for _, points, _ in pieces for point in points]))
    cuts = np.cumsum([len(points) for _, points, _ in pieces])[:-1]
    corners_seen, outlines = np.split(seen, cuts), np.split(camera.screen(seen), cuts)
    heart = np.mean([corners_seen[i].mean(axis=0) for i in range(faces)], axis=0)
    facing: list[tuple[float, int, tuple[float, float, float]]] = []
    for i in range(faces):
        normal, middle = _outward(corners_seen[i], heart), corners_seen[i].mean(axis=0)
        if normal[0] * middle[0] + normal[1] * middle[1] + normal[2] * middle[2] < 0:
            facing.append((float(np.linalg.norm(middle)), i, normal))
    for distance, i, normal in sorted(facing, reverse=True):
        name, _, colour = pieces[i]
        lit = weather.lit(colour, normal)
        if colour is GLASS:
            _paint_glass(canvas, outlines[i], weather.lit(body.colour, normal), lit, distance, label)
        else:
            canvas.fill(outlines[i], lit, distance, label)
        if name == "top":
            continue
        for k in range(faces, len(pieces)):
            if pieces[k][0] == name:
                ink = pieces[k][2]
                glows = weather.lamps_lit and max(ink) > 225 and name in ("rear", "front")
                # Wheels reach below the body, so what is fixed on a side is labelled too.
                canvas.fill(outlines[k], ink if glows else weather.lit(ink, normal), distance, label)


def put_wheels(body: Body, radius: float, axles: Sequence[float]) -> None:
    """Put wheels with rims on the sides of `body`."""
    for u in axles:
        for scale, ink in ((1.0, _TYRE), (0.62, (150, 152, 156)), (0.2, (60, 60, 64))):
            ring = zip(u + radius * scale * np.cos(_TURN), radius + radius * scale * np.sin(_TURN), strict=True)
            body.side.append(([(float(a), float(b)) for a, b in ring], ink))


def paint_undercarriage(
    canvas: Canvas, pose: Pose, half_length: float, half_width: float, label: LabelId, clearance: float
) -> None:
    """The shadow on the ground, and the tyres as seen from ahead or behind."""
    reach = half_width + 0.12
    foot = [
        (-half_length - 0.1, -reach, 0.0),
        (-half_length - 0.1, reach, 0.0),
        (half_length, reach, 0.0),
        (half_length, -reach, 0.0),
    ]
    corners = pose.world(foot)
    weather = canvas.weather
    canvas.ground_shadow(corners, 0.62)
    if weather.shadow > 0.3:
        drift = np.array([-weather.sun[0], 0.0, -weather.sun[2]]) / max(0.3, weather.sun[1]) * 1.1
        canvas.ground_shadow(np.concatenate([corners[:2], corners[2:] + drift]), weather.shadow * 0.9)
        canvas.ground_shadow(corners + drift * 0.8, weather.shadow * 0.5)
    for end in (half_length * 0.62, -half_length * 0.62):
        for sign in (-1.0, 1.0):
            inner, outer = sign * (half_width - 0.28), sign * (half_width - 0.02)
            tyre = [
                (end, inner, 0.0),
                (end, inner, clearance + 0.1),
                (end, outer, clearance + 0.1),
                (end, outer, 0.0),
            ]
            canvas.face(pose.world(tyre), _TYRE, label)
