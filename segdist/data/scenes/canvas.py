"""Camera and canvas of a street scene: the picture and its label map, drawn together by the same outlines.

World coordinates are metres in the street's own frame: x to the right of the road's centre line, y up from
the ground, z ahead of the camera along the street. Canvas coordinates are pixels of the (supersampled)
canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from segdist.data.scenes.labels import LabelId
from segdist.data.scenes.weather import Colour, Weather

Floats = NDArray[Any]

_ARC = np.linspace(-np.pi / 2, np.pi / 2, 6)
NEAREST = 1.2
"""Nothing is projected from closer than this many metres."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over a flat street that bends sideways. Lengths in canvas pixels unless stated."""

    width: int
    height: int
    focal: float
    centre: float
    """Column of the vanishing point of a straight street."""
    horizon: float
    """Row of the horizon."""
    eye: float
    """Height of the camera over the ground in metres."""
    lateral: float
    """Where the camera stands in metres to the right of the road's centre line."""
    curvature: float
    """Bend of the street in 1/metres; above zero it bends to the right."""

    def seen(self, points: Floats) -> Floats:
        """World `points` (..., 3) in the camera's frame (right, up, ahead), same shape, metres."""
        ahead = np.maximum(points[..., 2], NEAREST)
        right = points[..., 0] - self.lateral + 0.5 * self.curvature * ahead * ahead
        seen = np.empty(points.shape)
        seen[..., 0], seen[..., 1], seen[..., 2] = right, points[..., 1] - self.eye, ahead
        return seen

    def project(self, points: Floats) -> Floats:
        """World `points` (..., 3) in metres as canvas pixels (..., 2), column and row."""
        return self.screen(self.seen(points))

    def screen(self, seen: Floats) -> Floats:
        """Points (..., 3) in the camera's frame as canvas pixels (..., 2), column and row."""
        scale = self.focal / seen[..., 2]
        screen = seen[..., :2] * scale[..., None]
        screen *= (1.0, -1.0)
        screen += (self.centre, self.horizon)
        return screen


def fractal_noise(rng: np.random.Generator, size: int = 256) -> NDArray[np.float32]:
    """A (size, size) float32 tile of fractal noise that wraps around at its edges; mean 0, deviation 1."""
    total = np.zeros((size, size), np.float32)
    for octave, cells in enumerate((4, 8, 16, 32, 64, 128)):
        grid = np.pad(rng.standard_normal((cells, cells), dtype=np.float32), 2, mode="wrap")
        step = size // cells
        fine = Image.fromarray(grid).resize((size + 4 * step, size + 4 * step), Image.Resampling.BICUBIC)
        total += np.asarray(fine)[2 * step : -2 * step, 2 * step : -2 * step] * 0.72**octave
    return (total - total.mean()) / total.std()


class Canvas:
    """A picture (RGB) and a label map (L) of equal size; whatever has a label is drawn into both.

    Things are painted from far to near, so a near thing hides a far one in both.
    """

    def __init__(self, camera: Camera, weather: Weather, noise: NDArray[np.float32]) -> None:
        self.camera = camera
        self.weather = weather
        self.noise = noise
        self.image = Image.new("RGB", (camera.width, camera.height))
        self.label = Image.new("L", (camera.width, camera.height), int(LabelId.UNLABELED))
        self._image_pen = ImageDraw.Draw(self.image)
        self._label_pen = ImageDraw.Draw(self.label)

    def fill(self, outline: Floats, colour: Colour, distance: float, label: LabelId | None = None) -> None:
        """Fill the polygon `outline` (N, 2) in canvas pixels; without a label only the picture changes."""
        points = outline.ravel().tolist()
        red, green, blue = self.weather.hazed(colour, distance)
        self._image_pen.polygon(points, fill=(min(255, int(red)), min(255, int(green)), min(255, int(blue))))
        if label is not None:
            self._label_pen.polygon(points, fill=int(label))

    def face(self, corners: Floats, colour: Colour, label: LabelId | None = None) -> None:
        """Fill a flat polygon with world `corners` (N, 3)."""
        self.fill(self.camera.project(corners), colour, float(corners[:, 2].mean()), label)

    def faces(self, corners: Floats, colours: Sequence[Colour], label: LabelId | None = None) -> None:
        """Fill many polygons with world `corners` (M, N, 3), in order; a list without any draws nothing."""
        if len(corners) == 0:
            return
        outlines = self.camera.project(corners)
        distances = corners[:, :, 2].mean(axis=1).tolist()
        for outline, colour, distance in zip(outlines, colours, distances, strict=True):
            self.fill(outline, colour, distance, label)

    def upright(self, outline: Floats, colour: Colour, z: float, label: LabelId | None = None) -> None:
        """Fill a polygon that stands across the street at `z`; `outline` (N, 2) holds world x and y."""
        self.face(np.column_stack([outline, np.full(len(outline), z)]), colour, label)

    def capsules(
        self,
        ends: Floats,
        radii: Floats,
        colours: Sequence[Colour],
        label: LabelId | Sequence[LabelId] | None,
    ) -> None:
        """Fill round-ended limbs, in order; world `ends` (M, 2, 3) and `radii` (M, 2) in metres."""
        screen = self.camera.project(ends)
        size = radii * self.camera.focal / np.maximum(ends[..., 2], NEAREST)
        along = screen[:, 1] - screen[:, 0]
        angle = np.arctan2(along[:, 1], along[:, 0])[:, None] + _ARC
        unit = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        front = screen[:, 1, None] + unit * size[:, 1, None, None]
        back = screen[:, 0, None] - unit * size[:, 0, None, None]
        distances = ends[..., 2].mean(axis=1).tolist()
        for i, outline in enumerate(np.concatenate([front, back], axis=1)):
            own = label if label is None or isinstance(label, LabelId) else label[i]
            self.fill(outline, colours[i], distances[i], own)

    def blend(
        self, outline: Floats, colour: Colour, opacity: float, label: LabelId | None = None, blur: float = 0.0
    ) -> None:
        """Lay a translucent polygon over the picture; `outline` (N, 2) and `blur` in canvas pixels."""
        margin = 2.0 * blur + 1.0
        left, top = np.floor(np.maximum(outline.min(axis=0) - margin, 0)).astype(int).tolist()
        limits = (self.camera.width, self.camera.height)
        right, bottom = np.ceil(np.minimum(outline.max(axis=0) + margin, limits)).astype(int).tolist()
        if right <= left or bottom <= top:
            return
        mask = Image.new("L", (right - left, bottom - top), 0)
        points = (outline - (left, top)).ravel().tolist()
        ImageDraw.Draw(mask).polygon(points, fill=int(255 * opacity))
        if blur >= 0.5:
            mask = mask.filter(ImageFilter.BoxBlur(blur))
        ink = (min(255, int(colour[0])), min(255, int(colour[1])), min(255, int(colour[2])))
        self.image.paste(ink, (left, top, right, bottom), mask)
        if label is not None:
            self._label_pen.polygon(outline.ravel().tolist(), fill=int(label))

    def ground_shadow(self, corners: Floats, opacity: float) -> None:
        """Darken the ground under the world polygon `corners` (N, 3), with a soft edge."""
        nearest = max(NEAREST, float(corners[:, 2].min()))
        blur = min(12.0, 0.10 * self.camera.focal / nearest)
        self.blend(self.camera.project(corners), (16, 17, 24), opacity, blur=blur)

    def sprite(self, texture: NDArray[np.uint8], cover: NDArray[np.uint8], box: Floats, label: LabelId) -> None:
        """Paste a scaled (n, n, 3) `texture` where `cover` (n, n), scaled alike, is above 127.

        `box` is left, top, right, bottom in canvas pixels and may reach over the canvas' edge.
        """
        left, top, right, bottom = (float(value) for value in box)
        seen = (
            max(0, int(left)),
            max(0, int(top)),
            min(self.camera.width, int(np.ceil(right))),
            min(self.camera.height, int(np.ceil(bottom))),
        )
        if seen[2] <= seen[0] or seen[3] <= seen[1] or right - left < 1 or bottom - top < 1:
            return
        rows, columns = cover.shape
        across, down = columns / (right - left), rows / (bottom - top)
        part = (
            max(0.0, (seen[0] - left) * across),
            max(0.0, (seen[1] - top) * down),
            min(float(columns), (seen[2] - left) * across),
            min(float(rows), (seen[3] - top) * down),
        )
        size = (seen[2] - seen[0], seen[3] - seen[1])
        ink = Image.fromarray(texture).resize(size, Image.Resampling.BILINEAR, box=part)
        scaled = Image.fromarray(cover).resize(size, Image.Resampling.BILINEAR, box=part)
        mask = scaled.point([0] * 128 + [255] * 128)
        self.image.paste(ink, seen, mask)
        self.label.paste(int(label), seen, mask)
