"""Score a model, fp32, bf16 or int8, on a split at several input sizes, and time it."""

from __future__ import annotations

import csv
import io
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segdist.config import EvaluateConfig
from segdist.data.categories import categories_of
from segdist.data.cityscapes import WholeImages
from segdist.data.labels import LabelSet
from segdist.data.sampler import shard
from segdist.evaluation.cityscapes_export import SUFFIX, LabelIdEncoder
from segdist.evaluation.goal import judge_goal
from segdist.evaluation.latency import measure_latency
from segdist.evaluation.metrics import ConfusionMatrix, percent
from segdist.evaluation.overlays import ROLES, OverlayImage, choose_overlay_images, write_overlay
from segdist.evaluation.scoring import STAGES, Score, score_images
from segdist.evaluation.tta import InferenceMode
from segdist.models.load import LoadedModel
from segdist.run.files import write_atomic
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import ResultError
from segdist.run.speedup import Measured, goal_note, speed_up
from segdist.runtime.rank_context import RankContext
from segdist.system.progress import Progress
from segdist.tasks.dataset import open_splits
from segdist.tasks.model_form import open_fp32_base, open_model

PerImage = dict[int, tuple[float, float]]
"""mIoU and pixel accuracy in [0, 1] of an image, by its index."""
EXPORT_ROUND = 16
"""Images that each rank exports before rank 0 writes them: so few that their PNGs do not fill the memory."""


def evaluate(context: RankContext, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate as ``config`` says; returns the metrics of ``result.json``.

    Every image counts exactly once, whatever the number of ranks. Writes ``confusion.npy`` (int64
    ``[sizes, classes, classes]``, true class by row), ``images.csv`` (mIoU and pixel accuracy of each image at each
    size), the overlays of the first size, and the export where it is asked for.
    """
    cfg = config.evaluation
    model = open_model(context, config)
    info, labels = model.info, model.info.labels
    encoder = label_id_encoder(context, labels) if cfg.export else None
    (images,) = open_splits(context, config.dataset, config.run, (cfg.split,), labels)
    context.log(
        f"{info.model} {model.precision}, label set {labels.name}: {len(images)} images of {cfg.split} "
        f"at {', '.join(cfg.sizes)}"
    )
    context.run_on_rank0(partial(remove_earlier_images, context.step))
    sizes: dict[str, Any] = {}
    confusions, rows = [], []
    overlays, overlays_by = list[OverlayImage](), config.name
    for size in cfg.sizes:
        mode = InferenceMode.from_config(cfg, size)
        score = score_at_size(context, model, images, mode, size, encoder)
        per_image: PerImage = {}
        for scores in context.collectives.all_gather(score.per_image):
            per_image |= scores
        rows += [(size, images.samples[index].stem, *per_image[index]) for index in sorted(per_image)]
        if size == cfg.sizes[0]:
            choose = partial(overlay_images, config, model.precision, images, per_image)
            overlays, overlays_by = context.run_on_rank0(choose)
            write_overlays(context, model, images, mode, overlays)
        confusions.append(score.confusion.matrix.numpy())
        sizes[size] = {
            "loss": round(score.loss, 6),
            **score.confusion.scores(labels.classes, cfg.absent, categories_of(labels)),
            **scoring_time(context, score),
            **measure_latency(context, model, cfg, size, partial(open_fp32_base, context, config, model)),
        }
        miou = sizes[size]["miou_pct"]
        sizes[size] |= context.run_on_rank0(partial(judge_goal, config, model, size, miou))
        for line in size_summary(size, model.precision, sizes[size]):
            context.log(line)
    if context.is_rank0:
        write_confusion(context.step, confusions)
        write_atomic(context.step.path / "images.csv", images_csv(rows))
    return {
        **info.describe(),
        "precision": model.precision,
        "size_mb": round(model.file_bytes / 1e6, 3),
        "model_sha256": model.sha256,
        "split": cfg.split,
        "images": len(images),
        "absent_classes": cfg.absent,
        "passes_per_image": InferenceMode.from_config(cfg, cfg.sizes[0]).num_passes,
        "shown": shown_images(images, overlays),
        "shown_by": overlays_by,
        "sizes": sizes,
    }


def shown_images(images: WholeImages, overlays: list[OverlayImage]) -> list[dict[str, Any]]:
    """The images of which there are overlays, for ``result.json``."""
    return [
        {"stem": images.samples[one.index].stem, "role": one.role, "miou_pct": percent(one.miou)} for one in overlays
    ]


def label_id_encoder(context: RankContext, labels: LabelSet) -> LabelIdEncoder:
    """What exports predictions; warns where it is no answer to the official benchmark."""
    encoder = LabelIdEncoder(labels)
    if not encoder.official:
        context.warn(
            f"--export with {labels.name}: a class of several labels gets its first one's id; the official "
            "benchmark takes cityscapes19"
        )
    return encoder


def score_at_size(
    context: RankContext,
    model: LoadedModel,
    images: WholeImages,
    mode: InferenceMode,
    size: str,
    encoder: LabelIdEncoder | None,
) -> Score:
    """The score over all ranks at one input size; with an ``encoder`` the predictions are exported meanwhile.

    Raises:
        RuntimeError: where not every image was counted exactly once.
    """
    own = shard(len(images), context.ranks)
    each = EXPORT_ROUND if encoder else max(len(images), 1)
    most = -(-len(images) // context.ranks.world)  # every rank takes part in every round, also with nothing left
    score = Score(ConfusionMatrix(len(model.info.labels)))
    files: dict[str, bytes] = {}
    with Progress(size, len(own), context.is_rank0) as progress:

        def on_prediction(index: int, prediction: Any) -> None:
            if encoder:
                files[images.samples[index].stem + SUFFIX] = encoder.encode_png(prediction.numpy())
            progress.step()

        for begin in range(0, most, each):
            score_images(model.scored, images, own[begin : begin + each], mode, score, on_prediction)
            if encoder:
                write_files(context, context.step.path / "export" / size, files)
                files.clear()
    score.all_reduce(context.collectives)
    if score.images != len(images):
        raise RuntimeError(f"{score.images} images were counted, the split has {len(images)}")
    if not math.isfinite(score.loss):
        context.warn(f"{size}: the loss is {score.loss}, as logits of the model are not finite; mistrust its scores")
    return score


def remove_earlier_images(step: StepFolder) -> None:
    """Remove the overlays and exports of an earlier evaluation, so that none of them pass for this one's."""
    for folder in (step.overlays, step.path / "export"):
        if folder.is_dir():
            shutil.rmtree(folder)


def write_files(context: RankContext, folder: Path, files: dict[str, bytes]) -> None:
    """Bring the files of all ranks to rank 0, which writes them."""
    for part in context.collectives.all_gather(files):
        for name, data in part.items() if context.is_rank0 else ():
            write_atomic(folder / name, data)


def overlay_images(
    config: EvaluateConfig, precision: str, images: WholeImages, per_image: PerImage
) -> tuple[list[OverlayImage], str]:
    """The images to write overlays of, and the name of the evaluation that chose them.

    That is this one; but bf16 and int8 take what the fp32 evaluation of the same run chose, if it has ended, so that
    the pictures can be laid side by side.
    """
    mious = {index: miou for index, (miou, _) in per_image.items()}
    own = choose_overlay_images(mious, config.evaluation.overlays)
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
            return [OverlayImage(index, role, mious[index]) for index, role in found], step.name
    return own, config.name


def write_overlays(
    context: RankContext, model: LoadedModel, images: WholeImages, mode: InferenceMode, overlays: list[OverlayImage]
) -> None:
    """Predict the images once more, shared among the ranks; rank 0 writes their overlays."""
    labels = model.info.labels
    own = [one.index for one in overlays][context.ranks.rank :: context.ranks.world]
    predictions: dict[int, Any] = {}

    def keep(index: int, prediction: Any) -> None:
        predictions[index] = prediction.numpy()

    score_images(model.scored, images, own, mode, Score(ConfusionMatrix(len(labels))), keep)
    for part in context.collectives.all_gather(predictions):
        for index, prediction in part.items() if context.is_rank0 else ():
            image, truth = images[index]
            write_overlay(context.step.overlays, images.samples[index].stem, image, truth, prediction, labels)


def scoring_time(context: RankContext, score: Score) -> dict[str, Any]:
    """``seconds`` by stage, summed over the ranks, the net's share of them, and ``scoring_s`` of the slowest rank."""
    ranks = context.collectives.all_gather(score.seconds)
    seconds = {stage: round(sum(rank[stage] for rank in ranks), 3) for stage in STAGES}
    return {
        "scoring_s": round(max(sum(rank.values()) for rank in ranks), 3),
        "seconds": seconds,
        "net_share_pct": percent(seconds["net"] / max(sum(seconds.values()), 1e-9)),
    }


def write_confusion(step: StepFolder, confusions: list[Any]) -> None:
    """Write ``confusion.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack(confusions))
    write_atomic(step.confusion_npy, buffer.getvalue())


def images_csv(rows: list[tuple[str, str, float, float]]) -> bytes:
    """``images.csv``: a row for each image at each size; empty where no pixel of it counts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("size", "image", "miou_pct", "pixel_accuracy_pct"))
    writer.writerows((size, stem, percent(miou), percent(accuracy)) for size, stem, miou, accuracy in rows)
    return text.getvalue().encode(errors="replace")


def size_summary(size: str, precision: str, values: dict[str, Any]) -> list[str]:
    """Lines for the log: the scores, how much faster than fp32 the model is, and whether it keeps its goal."""
    latency = f"{values['latency_ms_p50']:.1f} ms an image"
    if values["miou_pct"] is None:
        lines = [f"{size}: no mIoU, as no pixel counts or a class is absent; {latency}"]
    else:
        lines = [
            f"{size}: mIoU {values['miou_pct']:.2f} %, pixel accuracy {values['pixel_accuracy_pct']:.2f} %, {latency}; "
            f"{values['net_share_pct']:.0f} % of the time in the net"
        ]
    measured = Measured("this", precision, size, values, {})
    if precision != "fp32":
        lines.append(f"{size}: {precision} {speed_up(measured, ())}")
    return [*lines, *(f"{size}: {note}" for note in [goal_note(measured)] if note)]
