"""A data set whose images show their labels by colour, a net that reads them off, and ranks as cheap processes."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from segdist.data.augment import MEAN, STD
from segdist.data.labels import IGNORE, LABEL_IDS, LabelSet, load_label_set

PAINTED = ("road", "building", "pole", "vegetation", "sky", "person", "car", "bicycle", "terrain", "truck")
"""What is to be seen in the images; the other evaluated labels never are."""
UNSAID = ("train", "traffic sign")
"""Classes that the net never names: with nothing of them in the images they are absent."""
IGNORED = ("ego vehicle", "out of roi", "caravan", "static")


def colour_data(root: Path, images: int, height: int = 48, width: int = 96, seed: int = 0, split: str = "val") -> Path:
    """A Cityscapes root: noisy images in the colours of the official labels, with pixels of ignored labels too."""
    draw = np.random.default_rng(seed)
    of_19 = load_label_set("cityscapes19")
    colours = np.zeros((256, 3), np.int16)
    for (name,), colour in zip(of_19.members, of_19.colors):
        colours[LABEL_IDS[name]] = colour
    for number in range(images):
        stem = f"town{number % 3}_{number:06d}_000019"
        names = draw.choice(PAINTED, 6, replace=False).tolist() + draw.choice(IGNORED, 1).tolist()
        blocks = np.array([LABEL_IDS[name] for name in names], np.uint8)[draw.integers(0, 7, (height // 8, width // 8))]
        label = blocks.repeat(8, 0).repeat(8, 1)
        image = (colours[label] + draw.normal(0, 50, (height, width, 3))).clip(0, 255).astype(np.uint8)
        for folder, suffix, pixels in (
            ("leftImg8bit", "_leftImg8bit", image),
            ("gtFine", "_gtFine_labelIds", label),
        ):
            path = root / folder / split / stem.split("_")[0] / f"{stem}{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


class NearestColour(nn.Module):
    """Logits of a pixel: minus its squared distance to the colour of each class, but for :data:`UNSAID`."""

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, len(labels), 1)
        colours = torch.tensor(labels.colors) / 255
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        with torch.no_grad():  # 2 c·x - |c|² of x = std·input + mean
            self.conv.weight.copy_((20 * colours * std)[:, :, None, None])
            self.conv.bias.copy_(10 * (2 * colours @ mean - (colours**2).sum(1)))
            self.conv.bias[[index for index, name in enumerate(labels.classes) if name in UNSAID]] = -1000.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalized images ``[N, 3, H, W]`` → logits of the same size."""
        return self.conv(inputs)


def train_ids(path: Path, labels: LabelSet) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A labelIds PNG as train ids, by the label set's members alone."""
    ids = np.asarray(Image.open(path))
    found = np.full(ids.shape, IGNORE, np.int64)
    for train_id, members in enumerate(labels.members):
        found[np.isin(ids, [LABEL_IDS[name] for name in members])] = train_id
    return found


def run_ranks(world: int, work: Callable[[], int]) -> list[int | None]:
    """Run ``work`` (it can be pickled) in ``world`` processes with the environment of ranks; their exit codes.

    They are forked from one process that has loaded torch, which saves each of them the seconds of its import.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["segdist.tasks.frame", "segdist.tasks.evaluate"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=_as_rank, args=(rank, world, port, work)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _as_rank(rank: int, world: int, port: int, work: Callable[[], int]) -> None:
    own = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in own.items()})
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.exit(work())
