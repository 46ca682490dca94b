"""Light and weather of a street scene: where the sun stands, what the haze and the sky look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
T = TypeVar("T")


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, each as likely (much faster than `rng.choice`)."""
    return options[int(rng.integers(len(options)))]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` blended with `second`; `share` in [0, 1] is the part of `second`."""
    keep = 1.0 - share
    return (
        first[0] * keep + second[0] * share,
        first[1] * keep + second[1] * share,
        first[2] * keep + second[2] * share,
    )


def jitter(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """`colour` made lighter or darker by up to `spread` (a fraction), with a slight change of hue."""
    gain = 1.0 + float(rng.uniform(-spread, spread))
    hue = rng.uniform(-0.25 * spread, 0.25 * spread, 3)
    return (colour[0] * (gain + hue[0]), colour[1] * (gain + hue[1]), colour[2] * (gain + hue[2]))


@dataclass(frozen=True)
class Weather:
    """Light of one scene. Colours are RGB in 0..255, gains are factors on a surface's colour."""

    kind: str
    """One of clear, cloudy, overcast, low sun, hazy, wet, dusk."""
    sun: tuple[float, float, float]
    """Unit vector to the sun (right, up, ahead)."""
    ambient: Colour
    """Gain of a surface in the shade."""
    direct: Colour
    """Gain that full sun adds."""
    haze: Colour
    """Colour that distant things fade to."""
    visibility: float
    """Distance in metres at which 63 % of a thing's colour is haze."""
    zenith: Colour
    clouds: float
    """Share of the sky under cloud, 0 to 1."""
    shadow: float
    """Darkness of cast shadows, 0 (none) to 1 (black)."""
    wet: float
    """Share of the mirror image that a wet road shows, 0 to 1."""
    lamps_lit: bool
    """Whether windows and headlamps shine."""

    def lit(self, colour: Colour, normal: tuple[float, float, float]) -> Colour:
        """`colour` of a surface that faces `normal` (right, up, ahead; unit length) under this light."""
        facing = self.sun[0] * normal[0] + self.sun[1] * normal[1] + self.sun[2] * normal[2]
        # A surface turned away still sees sky: half of the ambient light depends on how far up it looks.
        ambient = 0.86 + 0.14 * normal[1]
        direct = max(0.0, facing)
        return (
            colour[0] * (self.ambient[0] * ambient + self.direct[0] * direct),
            colour[1] * (self.ambient[1] * ambient + self.direct[1] * direct),
            colour[2] * (self.ambient[2] * ambient + self.direct[2] * direct),
        )

    def hazed(self, colour: Colour, distance: float) -> Colour:
        """`colour` as seen through `distance` metres of air."""
        return mix(colour, self.haze, 1.0 - math.exp(-distance / self.visibility))


# kind, weight, sun elevation (degrees), ambient, direct, haze, visibility, zenith, clouds, shadow, wet
_KINDS: tuple[
    tuple[str, float, tuple[float, float], Colour, Colour, Colour, float, Colour, float, float, float], ...
] = (
    (
        "clear",
        0.27,
        (35, 60),
        (0.62, 0.66, 0.74),
        (0.62, 0.58, 0.50),
        (196, 214, 232),
        520,
        (88, 140, 208),
        0.25,
        0.50,
        0.0,
    ),
    (
        "cloudy",
        0.23,
        (35, 60),
        (0.70, 0.72, 0.76),
        (0.40, 0.38, 0.34),
        (206, 214, 222),
        430,
        (120, 156, 204),
        0.60,
        0.38,
        0.0,
    ),
    (
        "overcast",
        0.18,
        (50, 70),
        (0.82, 0.83, 0.85),
        (0.10, 0.10, 0.10),
        (208, 211, 214),
        300,
        (178, 184, 192),
        0.85,
        0.12,
        0.0,
    ),
    (
        "low sun",
        0.12,
        (12, 22),
        (0.60, 0.58, 0.62),
        (0.70, 0.55, 0.36),
        (238, 212, 176),
        330,
        (118, 148, 196),
        0.35,
        0.46,
        0.0,
    ),
    (
        "hazy",
        0.08,
        (40, 60),
        (0.80, 0.81, 0.82),
        (0.14, 0.13, 0.12),
        (212, 214, 214),
        110,
        (196, 200, 204),
        0.30,
        0.16,
        0.0,
    ),
    (
        "wet",
        0.08,
        (50, 70),
        (0.70, 0.72, 0.76),
        (0.06, 0.06, 0.06),
        (188, 194, 202),
        210,
        (150, 158, 170),
        0.85,
        0.10,
        0.34,
    ),
    (
        "dusk",
        0.04,
        (6, 10),
        (0.50, 0.50, 0.60),
        (0.24, 0.16, 0.10),
        (196, 160, 150),
        260,
        (74, 88, 134),
        0.40,
        0.14,
        0.0,
    ),
)


def draw_weather(rng: np.random.Generator) -> Weather:
    """A weather at random: mostly sunny or cloudy days, now and then haze, rain or dusk."""
    weights = np.cumsum([entry[1] for entry in _KINDS])
    row = _KINDS[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
    kind, _, (lowest, highest), ambient, direct, haze, visibility, zenith, clouds, shadow, wet = row
    elevation = math.radians(float(rng.uniform(lowest, highest)))
    azimuth = float(rng.uniform(0, 2 * math.pi))
    sun = (
        math.cos(elevation) * math.sin(azimuth),
        math.sin(elevation),
        math.cos(elevation) * math.cos(azimuth),
    )
    return Weather(
        kind=kind,
        sun=sun,
        ambient=jitter(rng, ambient, 0.06),
        direct=jitter(rng, direct, 0.12),
        haze=jitter(rng, haze, 0.05),
        visibility=visibility * float(rng.uniform(0.75, 1.3)),
        zenith=jitter(rng, zenith, 0.10),
        clouds=min(1.0, clouds * float(rng.uniform(0.5, 1.3))),
        shadow=shadow,
        wet=wet * float(rng.uniform(0.7, 1.2)),
        lamps_lit=kind in ("wet", "dusk"),
    )
