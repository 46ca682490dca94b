"""Killed with -9 wherever it may be, and started again: the training ends as if nothing had happened."""

import os
import random

import pytest

from .harness import STEPS, assert_same

KILLS = int(os.environ.get("SEGDIST_SOAK_KILLS", "20"))
"""``make soak`` asks for 200."""
KILLS_A_RUN = 10
VARIANTS = (
    (2, ()),
    (3, ("--batch", "4", "--epochs", "6", "--ema", "0.9", "--aux-weight", "0.4", "--workers", "1")),
)
"""Number of ranks and further options; each is 12 steps long."""


def random_fault(draw):
    """A place and a count that a start is likely to come to."""
    place = draw.choice(["step", "agree", "write", "write", "fsync", "replace", "link", "image"])
    most = {"step": 4, "agree": 4, "write": 900, "fsync": 24, "replace": 16, "link": 3, "image": 10}[place]
    return {"place": place, "count": draw.randint(1, most)}


@pytest.mark.parametrize("seed", range(-(-KILLS // KILLS_A_RUN)))
def test_killed_at_random_points_again_and_again_it_ends_bit_identical(seed, training, undisturbed):
    draw = random.Random(seed)
    world, options = VARIANTS[seed % len(VARIANTS)]
    run = training("run0", world, *options)
    kills = halves = runs = 0
    while kills < KILLS_A_RUN:
        fault, rank = random_fault(draw), draw.choice([0, 0, *range(1, world)])
        start = run.start("--overwrite", faults={rank: [fault]}, SEGDIST_JOB_ID="7", SEGDIST_RESTART=str(run.starts))
        if start.wait(rank) == -9:
            kills += 1
        start.kill()
        halves += any(run.run.step("train").checkpoints.glob(".last.pt.*"))
        if run.is_completed():  # the next one begins
            assert_same(run.left(), undisturbed(world, *options))
            runs += 1
            run = training(f"run{runs}", world, *options)
    assert halves > 0  # some were hit inside the write of a checkpoint
    run.finish(SEGDIST_JOB_ID="7", SEGDIST_RESTART=str(run.starts))
    assert_same(run.left(), undisturbed(world, *options))
    assert [row["step"] for row in run.left()["steps"]] == list(range(1, STEPS + 1))
