"""What a training sees: its batches of random crops, and the weight of each class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from segdist.config import STRIDE, TrainConfig, parse_size, require
from segdist.data.augment import Augment
from segdist.data.cityscapes import Arrays, RandomCrops, WholeImages
from segdist.data.png import DataError
from segdist.data.sampler import StepSampler, shard
from segdist.runtime.rank_context import RankContext
from segdist.system.ranks import Ranks
from segdist.system.signals import leave_signals_to_the_rank


class CropLoader:
    """This rank's batches of random crops; its length is the number of steps in an epoch.

    Args:
        images: the training split.
        config: gives crop, augmentation, batch, seed and workers.
        ranks: who is asking.

    Raises:
        ConfigError: where a step has too few images for the ranks and their ``--accumulate``.
    """

    def __init__(self, images: WholeImages, config: TrainConfig, ranks: Ranks) -> None:
        cfg, workers = config.training, config.dataset.workers
        self.images = images
        self._sampler = StepSampler(len(images), cfg.batch, ranks, cfg.seed)
        least = ranks.world * cfg.accumulate
        require(
            self.batch_size >= least,
            f"--accumulate {cfg.accumulate}: {ranks.world} ranks share {self.batch_size} images a step; "
            f"give a --batch of at least {least}, or fewer parts",
        )
        augment = Augment(parse_size(cfg.crop), (cfg.scale_min, cfg.scale_max), cfg.flip)
        self._loader: DataLoader[Any] = DataLoader(
            _ErrorsAsItems(RandomCrops(images, augment, cfg.seed)),
            collate_fn=_collate,
            batch_sampler=self._sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals_to_the_rank,
            generator=torch.Generator(),  # the loader draws from it, and leaves the rank's random numbers alone
        )

    def __len__(self) -> int:
        return len(self._sampler)

    @property
    def batch_size(self) -> int:
        """Images a step, over all ranks."""
        return self._sampler.batch

    def batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share of each step of an epoch (from 0), from step ``first`` of it (from 0) on.

        Yields:
            images uint8 ``[n, h, w, 3]`` and train ids uint8 ``[n, h, w]``.

        Raises:
            DataError: naming a file that could be read before the training and cannot be now.
        """
        self._sampler.epoch, self._sampler.first = epoch, first
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
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


def _collate(items: list[Arrays | DataError]) -> Any:
    return next((item for item in items if isinstance(item, DataError)), None) or default_collate(items)


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
