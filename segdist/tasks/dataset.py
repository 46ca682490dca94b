"""Open a split of the data set: generate it where asked for, list it, and look at every file before the work starts."""

from __future__ import annotations

from pathlib import Path

from segdist.config import SCENES, DatasetConfig
from segdist.data.cityscapes import WholeImages
from segdist.data.labels import LabelSet
from segdist.data.layout import list_split
from segdist.data.sampler import shard
from segdist.data.scenes import ScenesConfig, ensure_scenes
from segdist.data.verify import check_samples, summarize
from segdist.runtime.rank_context import RankContext
from segdist.system.progress import Progress


def data_root(context: RankContext, dataset: DatasetConfig, run: str) -> str:
    """The Cityscapes root; for "scenes" rank 0 generates the default street scenes beside the run folder first."""
    if dataset.data != SCENES:
        return dataset.data
    out = Path(run).resolve().parent / SCENES
    return context.run_on_rank0(lambda: str(ensure_scenes(ScenesConfig(out=out))))


def open_split(context: RankContext, dataset: DatasetConfig, root: str, split: str, labels: LabelSet) -> WholeImages:
    """All samples of a split, every file checked; each rank checks its share.

    Raises:
        DataError: on every rank alike, naming the files.
    """
    samples = list_split(root, split)
    own = [samples[index] for index in shard(len(samples), context.ranks)]
    full = dataset.check == "full"
    with Progress(f"checking {split}", len(own), context.is_rank0) as progress:
        findings = check_samples(own, full, len(context.cores), progress.update_to)
    summarize(context.collectives.all_gather(findings), samples[0], full)
    return WholeImages(samples, labels)
