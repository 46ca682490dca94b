"""What a training sees: its batches of crops, and the weight of each class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segdist.config import TrainConfig, parse_size
from segdist.data.augment import Augment
from segdist.data.cityscapes import RandomCrops, WholeImages
from segdist.data.sampler import StepSampler, shard
from segdist.runtime.rank_context import RankContext
from segdist.system.signals import leave_signals_to_the_rank


def crop_loader(images: WholeImages, sampler: StepSampler, config: TrainConfig) -> DataLoader[Any]:
    """This rank's batches: images uint8 ``[n, h, w, 3]`` and train ids uint8 ``[n, h, w]``."""
    cfg = config.training
    augment = Augment(parse_size(cfg.crop), (cfg.scale_min, cfg.scale_max), cfg.flip)
    workers = config.dataset.workers
    return DataLoader(
        RandomCrops(images, augment, cfg.seed),  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=leave_signals_to_the_rank,
        generator=torch.Generator(),  # the loader draws from it, and leaves the rank's random numbers alone
    )


def class_weights(images: WholeImages, context: RankContext, classes: int, balance: float) -> Tensor:
    """Weight of each class in the loss: (its share of the split's pixels) ** -balance, their mean over pixels 1.

    The split's labels are counted once, each rank taking its share. A class that does not occur weighs 1.

    Shapes: → float32 ``[classes]``.
    """
    if balance == 0:
        return torch.ones(classes)
    counts = torch.zeros(256, dtype=torch.int64)
    for index in shard(len(images), context.ranks):
        counts += torch.bincount(torch.from_numpy(images.label(index)).flatten().long(), minlength=256)
    share = context.collectives.sum(counts)[:classes].double()
    share /= share.sum()
    weights = torch.where(share > 0, share**-balance, 1.0)
    return (weights / (weights * share).sum()).float()
