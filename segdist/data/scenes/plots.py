"""What stands beyond the pavements of a street scene: terraces, detached houses with gardens, parks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from segdist.data.scenes.buildings import paint_building, paint_fence, paint_garden_wall, paint_street_end
from segdist.data.scenes.canvas import Canvas
from segdist.data.scenes.foliage import paint_bush, paint_hedge, paint_tree
from segdist.data.scenes.street import CROSSING_WIDTH, Street
from segdist.data.scenes.weather import pick

Step = tuple[float, Callable[[Canvas, np.random.Generator], None]]
"""When to paint (the greater the distance in metres, the sooner) and what to call for it."""

_START, _END = 3.0, 150.0


def _stretches(street: Street) -> list[tuple[float, float]]:
    """Where plots lie along the street: everywhere but at the crossroads (from, to; metres ahead)."""
    if street.crossing is None:
        return [(_START, _END)]
    return [(_START, street.crossing - 1.5), (street.crossing + CROSSING_WIDTH + 1.5, _END)]


def _boundary(rng: np.random.Generator, x: float, near: float, far: float, kinds: tuple[str, ...]) -> Step | None:
    """A wall, fence or hedge between pavement and garden, or nothing."""
    kind = pick(rng, kinds)
    height = float(rng.uniform(0.9, 1.9))
    if kind == "wall":
        return far, partial(paint_garden_wall, x=x, near=near, far=far, height=height)
    if kind == "fence":
        return far, partial(paint_fence, x=x, near=near, far=far, height=height)
    if kind == "hedge":
        return far, partial(paint_hedge, x=x, near=near, far=far, height=height)
    return None


def _terrace(rng: np.random.Generator, x: float, near: float, far: float) -> list[Step]:
    """Buildings wall to wall, with a gap now and then that a wall or fence closes."""
    steps: list[Step] = []
    level = float(rng.uniform(11, 20))
    z = near - float(rng.uniform(0, 6))
    while z < far - 4:
        length = min(float(rng.uniform(10, 20)), far - z)
        if rng.random() < 0.12:
            step = _boundary(rng, x, max(_START, z), z + length * 0.5, ("wall", "fence", "hedge"))
            steps += [step] if step else []
            tree = x + float(np.sign(x)) * float(rng.uniform(2, 6))
            steps.append(
                (
                    z + length * 0.5,
                    partial(paint_tree, x=tree, z=z + length * 0.3, height=float(rng.uniform(6, 11))),
                )
            )
            z += length * 0.5
            continue
        height = level * float(rng.uniform(0.8, 1.25))
        front = x + float(np.sign(x)) * (float(rng.uniform(0.5, 2.5)) if rng.random() < 0.15 else 0.0)
        steps.append((z + length, partial(paint_building, x=front, span=(max(_START, z), z + length), height=height)))
        z += length
    return steps


def _houses(rng: np.random.Generator, x: float, near: float, far: float) -> list[Step]:
    """Detached houses set back behind gardens with trees, bushes and a boundary."""
    steps: list[Step] = []
    side = float(np.sign(x))
    setback = float(rng.uniform(3, 6))
    kinds = pick(rng, (("hedge", "hedge", "none"), ("fence", "hedge", "none"), ("wall", "hedge"), ("fence", "wall")))
    z = near
    while z < far - 8:
        length, gap = float(rng.uniform(9, 13)), float(rng.uniform(4, 9))
        end = min(z + length + gap, far)
        house = partial(
            paint_building, x=x + side * setback, span=(z + gap / 2, z + gap / 2 + length),
            height=float(rng.uniform(4.6, 6.6)), house=True,
        )  # fmt: skip
        # Painted from the back of the plot to the pavement: house, plants, boundary. All come before anything
        # on the pavement in front of them, so they take the place in the order of the plot's far end.
        steps.append((end + 2.0, house))
        for _ in range(int(rng.integers(1, 4))):
            at = float(rng.uniform(z, end))
            place = x + side * float(rng.uniform(0.8, setback - 0.5))
            if rng.random() < 0.4:
                steps.append(
                    (
                        end + at / 1000,
                        partial(paint_tree, x=place + side, z=at, height=float(rng.uniform(4, 8))),
                    )
                )
            else:
                steps.append((end + at / 1000, partial(paint_bush, x=place, z=at, height=float(rng.uniform(0.8, 2.2)))))
        behind = x + side * (setback + 12)
        steps.append((end + 14, partial(paint_tree, x=behind, z=end + 4, height=float(rng.uniform(8, 13)))))
        step = _boundary(rng, x, max(_START, z), end - 0.6, kinds)
        steps += [(end, step[1])] if step else []
        z = end
    return steps


def _park(rng: np.random.Generator, x: float, near: float, far: float) -> list[Step]:
    """Grass with trees in depth, bushes, and here and there a fence or a hedge along the pavement."""
    steps: list[Step] = []
    side = float(np.sign(x))
    kind = pick(rng, ("fence", "hedge", "wall", "none", "none", "none"))
    for start in np.arange(near, far, 16.0).tolist():
        end = min(start + 16.0, far)
        # Plants come before the boundary, and both before anything on the pavement in front of them.
        for _ in range(4):
            place, at = x + side * (1.5 + 22 * float(rng.random()) ** 1.3), float(rng.uniform(start, end))
            tree = partial(paint_tree, x=place, z=at, height=float(rng.uniform(6, 13)))
            steps.append((end + at / 1000, tree))
        if rng.random() < 0.8:
            place, at = x + side * float(rng.uniform(0.8, 6)), float(rng.uniform(start, end))
            steps.append((end + at / 1000, partial(paint_bush, x=place, z=at, height=float(rng.uniform(0.8, 2.0)))))
        step = _boundary(rng, x, start, end, (kind,))
        steps += [step] if step else []
    return steps


_PLANS = {"terrace": _terrace, "houses": _houses, "park": _park}


def plan_plots(rng: np.random.Generator, street: Street) -> list[Step]:
    """Plan both sides of the street beyond the pavements; the steps come in no order."""
    steps: list[Step] = []
    if rng.random() < 0.5:
        z = float(rng.uniform(75, 140))
        steps.append((z, partial(paint_street_end, z=z)))
    for right in (False, True):
        for near, far in _stretches(street):
            steps += _PLANS[street.plot[right]](rng, street.side(right) * street.wall[right], near, far)
    return steps
