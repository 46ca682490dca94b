"""What a training sees: its batches of random crops, and the weight of each class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from segdist.config import STRIDE, TrainConfig, parse_size, require
from segdist.data.augment import Augment
from segdist.data.cityscapes import Arrays, RandomCrops, WholeImages
from segdist.data.png import DataError
from segdist.data.sampler import StepSampler, shard
from segdist.runtime.rank_context import RankContext
from segdist.system.ranks import Ranks
from segdist.system.signals import StopFlag
from segdist.training.loader import iterate, make_loader


class CropLoader:
    """This rank's batches of random crops; its length is the number of steps in an epoch.

    Args:
        images: the training split.
        config: gives crop, augmentation, batch, seed and workers.
        ranks: who is asking.
        stop: whether a signal asks to stop, looked at while a batch is waited for.

    Raises:
        ConfigError: where a step has too few images for the ranks and their ``--accumulate``, or the node has no room
            for so many workers.
    """

    def __init__(self, images: WholeImages, config: TrainConfig, ranks: Ranks, stop: StopFlag | None = None) -> None:
        cfg = config.training
        self.images = images
        self._sampler = StepSampler(len(images), cfg.batch, ranks, cfg.seed)
        least = ranks.world * cfg.accumulate
        require(
            self.batch_size >= least,
            f"--accumulate {cfg.accumulate}: {ranks.world} ranks share {self.batch_size} images a step; "
            f"give a --batch of at least {least}, or fewer parts",
        )
        augment = Augment(parse_size(cfg.crop), (cfg.scale_min, cfg.scale_max), cfg.flip)
        self._stop = StopFlag() if stop is None else stop
        self._timeout = config.runtime.timeout
        self._sampler.end = cfg.epochs
        self._running: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._next: tuple[int, int] | None = None
        crops = _ErrorsAsItems(RandomCrops(images, augment, cfg.seed))
        self._loader = make_loader(crops, self._sampler, config.dataset.workers, ranks.local_world)

    def __len__(self) -> int:
        return len(self._sampler)

    @property
    def batch_size(self) -> int:
        """Images a step, over all ranks."""
        return self._sampler.batch

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of each step of an epoch (from 0), from step ``first`` of it (from 0) on.

        One epoch after the other is read ahead, so the first batch of the next is there once the scoring is done.

        Yields:
            images uint8 ``[n, h, w, 3]`` and train ids uint8 ``[n, h, w]``.

        Raises:
            DataError: naming a file that could be read before the training and cannot be now.
            NoBatch: where the workers give none.
        """
        if self._next != (epoch, first):
            self._sampler.epoch, self._sampler.first = epoch, first
            self._running = iterate(self._loader, self._stop, self._timeout)
        for step in range(first, len(self)):
            self._next = None  # for as long as it is waited for
            batch = next(self._running)
            self._next = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
            yield batch

    def image_names(self, epoch: int, batch: int, ranks: Iterable[int]) -> list[str]:
        """File names of the images that some ranks have in a step of an epoch (both from 0)."""
        step = self._sampler.steps(epoch)[batch]
        indices = [index for rank in ranks for index in step[rank :: self._sampler.ranks.world]]
        return [self.images.samples[index].image.name for index in indices]


class _ErrorsAsItems(Dataset[Any]):
    """Hands a data error on as the item: raised in a worker, it would reach the rank as a traceback in a message."""

    def __init__(self, crops: RandomCrops) -> None:
        self._crops = crops

    def __getitem__(self, key: tuple[int, int]) -> Arrays | DataError:
        try:
            return self._crops[key]
        except DataError as error:
            return error


def require_batchnorm_values(config: TrainConfig, loader: CropLoader, ranks: Ranks) -> None:
    """Refuse crops so small and few that HRNet's lowest branch, at 1/32, would normalize over a single value.

    Raises:
        ConfigError: naming crop and batch.
    """
    cfg = config.training
    height, width = parse_size(cfg.crop)
    pixels = -(-height // STRIDE) * -(-width // STRIDE)
    least = loader.batch_size // ranks.world // cfg.accumulate
    require(
        config.net.model == "unet" or pixels * least > 1 or (cfg.sync_batchnorm and ranks.world > 1),
        f"--crop {cfg.crop} --batch {cfg.batch}: {config.net.model} shrinks a crop to a 32nd, and {least} of "
        f"{height}x{width} gives batch normalization a single value; give --crop {2 * STRIDE}x{2 * STRIDE} or more, or "
        "more images a rank",
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
    share = context.collectives.all_reduce(counts)[:classes].double()
    share /= share.sum()
    weights = torch.where(share > 0, share**-balance, 1.0)
    return (weights / (weights * share).sum()).float()
