"""Where the time of a training sample goes; printed, nothing is asserted about wall-clock time."""

import time
from pathlib import Path

import numpy as np

from segdist.data.augment import Augment
from segdist.data.cityscapes import WholeImages
from segdist.data.labels import load_label_set
from segdist.data.layout import list_split
from segdist.data.scenes import ScenesConfig, ensure_scenes


def bench_decode_and_crop(tmp_path: Path) -> None:
    root = ensure_scenes(ScenesConfig(out=tmp_path / "scenes", train=8, val=0, size="1024x2048"))
    images = WholeImages(list_split(root, "train"), load_label_set("street13"))
    augment = Augment((256, 512))
    start = time.perf_counter()
    pairs = [images[index] for index in range(len(images))]
    decode = (time.perf_counter() - start) / len(images)
    start = time.perf_counter()
    for index, (image, label) in enumerate(pairs):
        augment(image, label, np.random.default_rng(index))
    crop = (time.perf_counter() - start) / len(images)
    print(f"\n1024x2048 → 256x512 crop: decoding takes {decode / crop:.1f}x the crop ({1000 * decode:.0f} ms)")
