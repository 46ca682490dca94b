"""Which rank takes which sample in which step.

The order of an epoch and the samples of a step follow from (seed, epoch, global batch) alone; ranks only divide each
step among them. So 1, 2 and 4 ranks see the same samples in the same steps, also where the sizes do not divide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from segdist.config import ConfigError
from segdist.system.ranks import Ranks


class StepSampler:
    """Yields, for each step of ``epoch`` from ``first`` on, and of the epochs after it before ``end``, the keys
    ``(epoch, index)`` of one rank.

    A step has exactly ``batch`` samples over all ranks; a remainder that does not fill a step is left out (another one
    each epoch, as the order is drawn anew). A split smaller than the batch makes one step of all its samples.

    Args:
        samples: size of the split.
        batch: samples a step, over all ranks.
        ranks: who is asking.
        seed: of the order.

    Raises:
        ConfigError: where a rank would get no sample.
    """

    def __init__(self, samples: int, batch: int, ranks: Ranks, seed: int) -> None:
        self.samples = samples
        self.batch = min(batch, samples)
        self.ranks = ranks
        self.seed = seed
        self.epoch = 0
        self.first = 0
        self.end = 1
        if self.batch < ranks.world:
            raise ConfigError(
                f"--batch {batch} on {samples} images and {ranks.world} ranks: every rank needs a sample a step; "
                f"give at least {ranks.world} of each, or fewer ranks"
            )

    def __len__(self) -> int:
        """Steps a whole epoch."""
        return self.samples // self.batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first = self.first
        for epoch in range(self.epoch, max(self.end, self.epoch + 1)):
            for step in self.steps(epoch)[first:]:
                yield [(epoch, index) for index in step[self.ranks.rank :: self.ranks.world]]
            first = 0

    def steps(self, epoch: int) -> list[list[int]]:
        """The sample indices of every step of an epoch, over all ranks."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.samples)
        return [
            [int(index) for index in order[step * self.batch : (step + 1) * self.batch]] for step in range(len(self))
        ]


def shard(samples: int, ranks: Ranks) -> range:
    """The samples a rank evaluates: each one is counted exactly once over all ranks."""
    return range(ranks.rank, samples, ranks.world)
