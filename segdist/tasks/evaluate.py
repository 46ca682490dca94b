"""Score a model, fp32, bf16 or int8, on a split at several input sizes, and time it."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from segdist.config import EvaluateConfig, EvaluationConfig, parse_size
from segdist.data.categories import categories_of
from segdist.data.cityscapes import WholeImages
from segdist.data.sampler import shard
from segdist.evaluation.cityscapes_export import SUFFIX, LabelIds
from segdist.evaluation.latency import time_passes
from segdist.evaluation.metrics import ConfusionMatrix, percent
from segdist.evaluation.overlays import ROLES, Shown, choose, write_overlay
from segdist.evaluation.scoring import PARTS, Score, score_images
from segdist.evaluation.tta import InferenceMode
from segdist.models.forward import Net
from segdist.models.load import LoadedModel, load_model_file
from segdist.run.files import write_atomic
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import ResultError
from segdist.runtime.ipex import Ipex
from segdist.runtime.precision import choose_precision
from segdist.runtime.rank_context import RankContext
from segdist.system.progress import Progress
from segdist.tasks.dataset import data_root, open_split

Passed = dict[str, Any] | None
ROUND = 16
"""Images that each rank exports before rank 0 writes them: so few that their PNGs do not fill the memory."""


def evaluate(context: RankContext, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate as ``config`` says; returns the metrics of ``result.json``.

    Every image counts exactly once, whatever the number of ranks. Writes ``confusion.npy`` (int64
    ``[sizes, classes, classes]``, true class by row), ``images.csv`` (mIoU and pixel accuracy of each image at each
    size), the overlays of the first size, and the export where it is asked for.
    """
    cfg = config.evaluation
    weights = Path(config.weights) if config.weights else RunFolder(config.run).model_pt
    model = load_model_file(weights, cfg.eval_precision, context.memory_format)
    if cfg.eval_precision == "bf16":
        precision = choose_precision("bf16", context.cpu, Ipex(None, "not used in evaluation"))
        context.record_choice("precision", f"bf16 ({precision.reason})")
        if precision.warning:
            context.warn(precision.warning)
    labels = model.info.labels
    ids = LabelIds(labels) if cfg.export else None
    if ids and not ids.official:
        context.warn(
            f"--export with {labels.name}: a class of several labels gets its first one's id; the official "
            "benchmark takes cityscapes19"
        )
    root = data_root(context, config.dataset, config.run)
    images = open_split(context, config.dataset, root, cfg.split, labels)
    context.log(
        f"{model.info.model} {model.precision}, label set {labels.name}: {len(images)} images of {cfg.split} "
        f"at {', '.join(cfg.sizes)}"
    )

    context.run_on_rank0(partial(forget_pictures, context.step))
    sizes: dict[str, Any] = {}
    confusions, rows = [], []
    shown, shown_by = list[Shown](), config.name
    for size in cfg.sizes:
        view = InferenceMode.of(cfg, size)
        score = score_at(context, model.net, images, view, size, len(labels), ids)
        by_image: dict[int, tuple[float, float]] = {}
        for part in context.collectives.gather(score.by_image):
            by_image |= part
        rows += [(size, images.samples[index].stem, *by_image[index]) for index in sorted(by_image)]
        if size == cfg.sizes[0]:
            shown, shown_by = context.run_on_rank0(partial(pick, config, model.precision, images, by_image))
            show(context, model, images, view, shown)
        confusions.append(score.confusion.matrix.numpy())
        sizes[size] = {
            "loss": round(score.loss, 6),
            **score.confusion.scores(labels.classes, cfg.absent, categories_of(labels)),
            **time_spent(context, score),
            **timings(context, model, cfg, size),
        }
        context.log(summary(size, sizes[size]))
    if context.is_rank0:
        write_matrix(context, confusions)
        write_atomic(context.step.path / "images.csv", image_rows(rows))
    return {
        "model": model.info.model,
        "width": model.info.width,
        "precision": model.precision,
        "labels": labels.name,
        "classes": list(labels.classes),
        "colors": [list(color) for color in labels.colors],
        "parameters_m": round(model.info.parameters / 1e6, 4),
        "size_mb": round(model.file_bytes / 1e6, 3),
        "split": cfg.split,
        "images": len(images),
        "absent_classes": cfg.absent,
        "passes_per_image": InferenceMode.of(cfg, cfg.sizes[0]).num_passes,
        "shown": [
            {"stem": images.samples[one.index].stem, "role": one.role, "miou_pct": percent(one.miou)} for one in shown
        ],
        "shown_by": shown_by,
        "sizes": sizes,
    }


def score_at(
    context: RankContext,
    net: Net,
    images: WholeImages,
    view: InferenceMode,
    size: str,
    classes: int,
    ids: LabelIds | None,
) -> Score:
    """The score over all ranks at one input size; ``ids`` exports the predictions meanwhile.

    Raises:
        RuntimeError: where not every image was counted exactly once.
    """
    own = shard(len(images), context.ranks)
    each = ROUND if ids else max(len(images), 1)
    most = -(-len(images) // context.ranks.world)  # every rank takes part in every round, also with nothing left
    score = Score(ConfusionMatrix(classes))
    files: dict[str, bytes] = {}
    with Progress(size, len(own), context.is_rank0) as progress:

        def on_image(index: int, prediction: Any) -> None:
            if ids:
                files[images.samples[index].stem + SUFFIX] = ids.png(prediction.numpy())
            progress.step()

        for begin in range(0, most, each):
            score_images(net, images, own[begin : begin + each], view, classes, on_image=on_image, into=score)
            if ids:
                write_files(context, context.step.path / "export" / size, files)
                files.clear()
    score.sum_over(context.collectives)
    if score.images != len(images):
        raise RuntimeError(f"{score.images} images were counted, the split has {len(images)}")
    return score


def forget_pictures(step: StepFolder) -> None:
    """Remove the overlays and exports of an earlier evaluation, so that none of them pass for this one's."""
    for folder in (step.overlays, step.path / "export"):
        if folder.is_dir():
            shutil.rmtree(folder)


def write_files(context: RankContext, folder: Path, files: dict[str, bytes]) -> None:
    """Bring the files of all ranks to rank 0, which writes them."""
    for part in context.collectives.gather(files):
        for name, data in part.items() if context.is_rank0 else ():
            write_atomic(folder / name, data)


def pick(
    config: EvaluateConfig, precision: str, images: WholeImages, by_image: dict[int, tuple[float, float]]
) -> tuple[list[Shown], str]:
    """The images to show, and the name of the evaluation that picked them.

    That is this one; but bf16 and int8 show what the fp32 evaluation of the same run picked, if it has ended, so that
    the pictures can be laid side by side.
    """
    scores = {index: miou for index, (miou, _) in by_image.items()}
    own = choose(scores, config.evaluation.overlays)
    if precision == "fp32":
        return own, config.name
    index_of = {sample.stem: index for index, sample in enumerate(images.samples)}
    for step in RunFolder(config.run).steps():
        try:
            metrics = step.read_result().metrics if step.task == "evaluate" and step.name != config.name else {}
        except ResultError:
            continue
        theirs = [one for one in metrics.get("shown", []) if one.get("stem") in index_of and one.get("role") in ROLES]
        if (
            metrics.get("precision") == "fp32"
            and metrics.get("split") == config.evaluation.split
            and next(iter(metrics.get("sizes", {})), None) == config.evaluation.sizes[0]
            and len(theirs) == len(own)
        ):
            found = [(index_of[one["stem"]], one["role"]) for one in theirs]
            return [Shown(index, role, scores[index]) for index, role in found], step.name
    return own, config.name


def show(
    context: RankContext, model: LoadedModel, images: WholeImages, view: InferenceMode, shown: list[Shown]
) -> None:
    """Predict the images ``shown`` once more, shared among the ranks; rank 0 writes their pictures."""
    own = [one.index for one in shown][context.ranks.rank :: context.ranks.world]
    predictions: dict[int, Any] = {}

    def keep(index: int, prediction: Any) -> None:
        predictions[index] = prediction.numpy()

    score_images(model.net, images, own, view, len(model.info.labels), on_image=keep)
    for part in context.collectives.gather(predictions):
        for index, prediction in part.items() if context.is_rank0 else ():
            image, truth = images[index]
            stem = images.samples[index].stem
            write_overlay(context.step.overlays, stem, image, truth, prediction, model.info.labels)


def time_spent(context: RankContext, score: Score) -> dict[str, Any]:
    """``seconds`` by part, summed over the ranks, the net's share of them, and ``scoring_s`` of the slowest rank."""
    ranks = context.collectives.gather(score.seconds)
    seconds = {part: round(sum(rank[part] for rank in ranks), 3) for part in PARTS}
    return {
        "scoring_s": round(max(sum(rank.values()) for rank in ranks), 3),
        "seconds": seconds,
        "net_share_pct": percent(seconds["net"] / max(sum(seconds.values()), 1e-9)),
    }


def timings(context: RankContext, model: LoadedModel, cfg: EvaluationConfig, size: str) -> dict[str, Any]:
    """Latency of the net as it is (eager), of the same net traced and frozen, and GMACs.

    One network at a time on rank 0. The other ranks sleep; they hear from it after every pass, so that a slow net
    does not look like a lost one. With a window, the window is what is timed.
    """
    timed = cfg.window or size
    passes = partial(time_passes, size=parse_size(timed), runs=cfg.latency_runs, warmup=cfg.latency_warmup)
    found: dict[str, Any] = {"latency_input": timed}
    found |= last(context, lambda: passes(model.net))
    macs = context.run_on_rank0(lambda: model.macs_at(timed))
    found["gmacs"] = None if macs is None else round(macs / 1e9, 3)
    of_traced = last(context, lambda: chain.from_iterable(passes(net) for net in [model.traced()] if net))
    kept = [name for name in of_traced if name.startswith(("latency_ms", "images_per_s", "peak_memory_mb"))]
    return found | {f"traced_{name}": of_traced[name] for name in kept}


def last(context: RankContext, begin: Callable[[], Iterable[Passed]]) -> dict[str, Any]:
    """What the iterator that ``begin`` makes yields last, on every rank; it runs on rank 0, step by step."""
    steps = iter(begin() if context.is_rank0 else ())
    found: dict[str, Any] = {}

    def step() -> tuple[bool, Passed]:
        for value in steps:
            return True, value
        return False, None

    while True:
        more, value = context.run_on_rank0(step)
        if not more:
            return found
        found = value or {}


def write_matrix(context: RankContext, confusions: list[Any]) -> None:
    """Write ``confusion.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack(confusions))
    write_atomic(context.step.confusion_npy, buffer.getvalue())


def image_rows(rows: list[tuple[str, str, float, float]]) -> bytes:
    """``images.csv``: a row for each image at each size; empty where no pixel of it counts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("size", "image", "miou_pct", "pixel_accuracy_pct"))
    writer.writerows((size, stem, percent(miou), percent(accuracy)) for size, stem, miou, accuracy in rows)
    return text.getvalue().encode()


def summary(size: str, values: dict[str, Any]) -> str:
    """One line for the log."""
    latency = f"{values['latency_ms_p50']:.1f} ms an image"
    if values["miou_pct"] is None:
        return f"{size}: no mIoU, as no pixel counts or a class is absent; {latency}"
    return (
        f"{size}: mIoU {values['miou_pct']:.2f} %, pixel accuracy {values['pixel_accuracy_pct']:.2f} %, {latency}; "
        f"{values['net_share_pct']:.0f} % of the time in the net"
    )
