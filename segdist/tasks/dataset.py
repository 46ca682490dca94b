"""Open splits of the data set: paint it where asked for, say what it is, and look at every file before the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segdist.config import DatasetConfig
from segdist.data.cityscapes import WholeImages
from segdist.data.labels import LabelSet
from segdist.data.layout import Sample, list_split
from segdist.data.sampler import shard
from segdist.data.scenes import ScenesConfig, ensure_scenes
from segdist.data.source import former_word_note, is_painted, painted_root
from segdist.data.verify import check_samples, summarize
from segdist.runtime.rank_context import RankContext
from segdist.system.progress import Progress


def open_splits(
    context: RankContext, dataset: DatasetConfig, run: str, splits: Sequence[str], labels: LabelSet
) -> list[WholeImages]:
    """All samples of each split, every file checked, each rank checking its share.

    Which data set it is, how many images each split has, and the label set go into the log's first lines and into the
    decisions of ``result.json``. The labels of the test split may all be ignored, as the official ones are; in the
    others some pixel must count.

    Raises:
        DataError: on every rank alike, naming the files.
    """
    root, painted = _find_root(context, dataset, run)
    samples = {split: list_split(root, split) for split in splits}
    counts = ", ".join(f"{len(found)} {split}" for split, found in samples.items())
    kind = "street scenes painted by segdist" if painted else "Cityscapes layout"
    context.record_choice("data", f"{Path(root).resolve()} ({kind}): {counts} images; {labels.describe()}")
    for split, found in samples.items():
        _verify(context, dataset, split, found, None if split == "test" else labels)
    return [WholeImages(found, labels) for found in samples.values()]


def _find_root(context: RankContext, dataset: DatasetConfig, run: str) -> tuple[str, bool]:
    """The Cityscapes root, and whether rank 0 has painted it."""

    def find() -> tuple[str, bool]:
        if not is_painted(dataset.data):
            return dataset.data, False
        if note := former_word_note(dataset.data):
            context.warn(note)
        return str(ensure_scenes(ScenesConfig(out=painted_root(run)))), True

    return context.run_on_rank0(find)


def _verify(
    context: RankContext, dataset: DatasetConfig, split: str, samples: tuple[Sample, ...], labels: LabelSet | None
) -> None:
    own = [samples[index] for index in shard(len(samples), context.ranks)]
    with Progress(f"checking {split}", len(own), context.is_rank0) as progress:
        findings = check_samples(own, dataset.check == "full", len(context.cores), progress.update_to)
    summarize(context.collectives.all_gather(findings), samples, labels)
