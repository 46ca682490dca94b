"""What a rank sees: the same samples in the same steps on any number of ranks, and the same crops of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdist.config import ConfigError
from segdist.data.augment import FILL, Augment, sample_generator
from segdist.data.labels import IGNORE
from segdist.data.sampler import StepSampler, shard
from segdist.system.ranks import Ranks


def steps_of(samples, batch, world, epoch=0, seed=0):
    """For each step the sorted samples over all ranks."""
    samplers = [StepSampler(samples, batch, Ranks(rank, world, rank, world), seed) for rank in range(world)]
    for sampler in samplers:
        sampler.epoch = epoch
    return [sorted(key for part in parts for key in part) for parts in zip(*samplers)]


@pytest.mark.parametrize(("samples", "batch"), [(64, 8), (61, 8), (30, 7), (9, 4), (5, 8)])
def test_1_2_and_4_ranks_see_the_same_samples_in_the_same_steps_over_a_whole_epoch(samples, batch):
    for epoch in range(3):
        alone = steps_of(samples, batch, 1, epoch)
        assert len(alone) == samples // min(batch, samples)
        assert steps_of(samples, batch, 2, epoch) == alone
        assert steps_of(samples, batch, 4, epoch) == alone


@given(st.integers(1, 80), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_no_sample_comes_twice_in_an_epoch_and_no_rank_goes_empty(samples, batch, world, epoch):
    if min(batch, samples) < world:
        with pytest.raises(ConfigError, match="every rank needs a sample a step"):
            StepSampler(samples, batch, Ranks(0, world, 0, world), 0)
        return
    steps = steps_of(samples, batch, world, epoch)
    seen = [key for step in steps for key in step]
    assert len(set(seen)) == len(seen) == len(steps) * min(batch, samples)
    for rank in range(world):
        assert all(StepSampler(samples, batch, Ranks(rank, world, rank, world), 0))


def test_the_order_changes_with_the_epoch_and_the_seed():
    assert steps_of(64, 8, 1, 0) != steps_of(64, 8, 1, 1)
    assert steps_of(64, 8, 1, 0, seed=0) != steps_of(64, 8, 1, 0, seed=1)


@given(st.integers(0, 50), st.integers(1, 16))
def test_evaluation_counts_every_sample_exactly_once(samples, world):
    parts = [list(shard(samples, Ranks(rank, world, rank, world))) for rank in range(world)]
    assert sorted(index for part in parts for index in part) == list(range(samples))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


IMAGE = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
LABEL = np.random.default_rng(1).integers(0, 13, (64, 128), np.uint8)


def test_a_crop_follows_from_seed_epoch_and_index_alone():
    augment = Augment((32, 64))

    def crop(*key):
        return augment(IMAGE, LABEL, sample_generator(*key))[0].tobytes()

    assert crop(0, 1, 2) == crop(0, 1, 2)
    assert len({crop(0, 1, 2), crop(1, 1, 2), crop(0, 2, 2), crop(0, 1, 3)}) == 4


@given(st.integers(0, 10_000), st.sampled_from([(32, 64), (64, 128), (96, 160), (33, 47)]))
def test_a_crop_has_its_size_at_any_zoom_and_image_and_label_move_together(seed, size):
    ids = np.repeat(np.repeat(np.arange(8, dtype=np.uint8).reshape(2, 4), 32, 0), 32, 1)
    image = np.stack([ids * 30] * 3, -1)
    out, label = Augment(size)(image, ids, np.random.default_rng(seed))
    assert out.shape == (*size, 3)
    assert label.shape == size
    inside = label != IGNORE
    assert inside.any()
    assert (out[~inside] == FILL).all()
    # Away from the edges of the squares, the colour is the label's.
    assert (np.abs(out[inside, 0].astype(int) - label[inside] * 30) <= 2).mean() > 0.5


def test_zoom_1_at_full_size_without_flip_is_the_image_itself():
    out, label = Augment((64, 128), (1.0, 1.0), flip=False)(IMAGE, LABEL, np.random.default_rng(0))
    assert (out == IMAGE).all()
    assert (label == LABEL).all()


def test_half_of_the_crops_are_mirrored():
    augment = Augment((64, 128), (1.0, 1.0))
    mirrored = sum(
        bool((augment(IMAGE, LABEL, np.random.default_rng(seed))[1] == LABEL[:, ::-1]).all()) for seed in range(200)
    )
    assert 70 < mirrored < 130
