"""A rank's batches of an epoch, which images they are, and how classes are weighed."""

import contextlib
import shutil

import numpy as np
import pytest
import torch

from segdist.config import ConfigError, DatasetConfig, NetConfig, RuntimeConfig, TrainConfig, TrainingConfig
from segdist.data.cityscapes import WholeImages
from segdist.data.labels import load_label_set
from segdist.data.layout import list_split
from segdist.data.png import DataError
from segdist.run.folder import RunFolder
from segdist.runtime.collectives import Collectives
from segdist.runtime.rank_context import RankContext
from segdist.system.cpu import Cpu
from segdist.system.ranks import Ranks
from segdist.training.crops import CropLoader, class_weights, require_batchnorm_values

LABELS = load_label_set("street13")


@pytest.fixture(scope="module")
def images(streets):
    """Eight of 64x128 pixels."""
    return WholeImages(list_split(str(streets), "train"), LABELS)


def loader_of(images, rank=0, world=1, **options):
    training = TrainingConfig(**{"batch": 3, "crop": "32x64", **options})
    return CropLoader(images, TrainConfig(dataset=DatasetConfig(workers=0), training=training), Ranks(rank, world))


def test_the_ranks_share_each_step_and_name_their_images(images):
    loaders = [loader_of(images, rank, 2) for rank in range(2)]
    assert [(len(loader), loader.batch_size) for loader in loaders] == [(2, 3)] * 2
    seen = []
    for batch, shares in enumerate(zip(*(loader.batches(1, 0) for loader in loaders))):
        assert [share[0].shape for share in shares] == [(2, 32, 64, 3), (1, 32, 64, 3)]
        assert [share[1].shape for share in shares] == [(2, 32, 64), (1, 32, 64)]
        assert {tensor.dtype for share in shares for tensor in share} == {torch.uint8}
        names = [loaders[0].image_names(1, batch, [rank]) for rank in range(2)]
        assert [len(own) for own in names] == [2, 1]
        assert loaders[1].image_names(1, batch, [0, 1]) == names[0] + names[1]
        seen += names[0] + names[1]
    assert len(set(seen)) == 6


def test_an_epoch_goes_on_where_it_was_left_with_the_same_crops(images):
    whole = list(loader_of(images).batches(4, 0))
    rest = list(loader_of(images).batches(4, 1))
    assert [len(whole), len(rest)] == [2, 1]
    assert torch.equal(rest[0][0], whole[1][0])
    assert not torch.equal(next(loader_of(images).batches(5, 1))[0], whole[1][0])


def test_a_step_with_too_few_images_for_its_parts_is_refused(images):
    loader_of(images, 0, 2, batch=4, accumulate=2)
    with pytest.raises(ConfigError, match="2: 2 ranks share 3 images a step; give a --batch of at least 4"):
        loader_of(images, 0, 2, batch=3, accumulate=2)


@pytest.mark.parametrize("balance", [0.0, 0.25, 1.0])
def test_a_class_weighs_its_share_of_the_pixels_to_the_power_of_minus_the_balance(images, tmp_path, balance):
    context = RankContext(
        Ranks(),
        (0,),
        Cpu("", frozenset()),
        Collectives(Ranks(), "gloo"),
        RunFolder(tmp_path).step("train"),
        RuntimeConfig(),
    )
    weights = class_weights(images, context, len(LABELS), balance).double().numpy()
    pixels = np.concatenate([images.label(index).ravel() for index in range(len(images))])
    counts = np.array([(pixels == label).sum() for label in range(len(LABELS))])
    share = counts / counts.sum()
    assert (weights * share).sum() == pytest.approx(1, rel=1e-6)  # the mean over pixels
    there = counts > 0
    assert there.sum() > 5
    expected = share[there] ** -balance
    assert weights[there] / weights[there][0] == pytest.approx(expected / expected[0], rel=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_can_be_read_no_more_is_one_line(streets, tmp_path, workers):
    root = tmp_path / "data"
    shutil.copytree(streets, root)
    samples = list_split(root, "train")
    config = TrainConfig(
        dataset=DatasetConfig(workers=workers), training=TrainingConfig(batch=len(samples), crop="64x128")
    )
    loader = CropLoader(WholeImages(samples, load_label_set("street13")), config, Ranks(0, 1))
    samples[3].image.unlink()
    with pytest.raises(DataError, match=f"{samples[3].image.name}: is missing; copy the data set again$") as refused:
        list(loader.batches(0, 0))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("crop", "batch", "refused"), [("32x32", 1, True), ("32x32", 2, False), ("64x64", 1, False)])
def test_a_batch_norm_over_one_value_is_refused_before_the_start(streets, crop, batch, refused):
    config = TrainConfig(
        net=NetConfig(model="hrnetv2_w18"),
        dataset=DatasetConfig(workers=0),
        training=TrainingConfig(batch=batch, crop=crop),
    )
    images = WholeImages(list_split(streets, "train"), load_label_set("street13"))
    ranks = Ranks(0, 1)
    loader = CropLoader(images, config, ranks)
    said = pytest.raises(ConfigError, match=f"--crop {crop} --batch {batch}: .* a single value")
    with said if refused else contextlib.nullcontext():
        require_batchnorm_values(config, loader, ranks)
