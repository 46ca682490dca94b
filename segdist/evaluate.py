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
from segdist.data.dataset import WholeImages
from segdist.data.sampling import shard
from segdist.export import SUFFIX, LabelIds
from segdist.latency import time_passes
from segdist.loaded import Model, load_any
from segdist.metrics import Confusion, percent
from segdist.models.inference import Net
from segdist.overlays import ROLES, Shown, choose, write_overlay
from segdist.progress import Progress
from segdist.results import ResultError, RunFolder, StepFolder, write_atomic
from segdist.runtime.ipex import Ipex
from segdist.runtime.precision import choose_precision
from segdist.scoring import PARTS, Score, score_images
from segdist.session import Session
from segdist.splits import data_root, open_split
from segdist.views import View

Passed = dict[str, Any] | None
ROUND = 16
"""Images that each rank exports before rank 0 writes them: so few that their PNGs do not fill the memory."""


def evaluate(session: Session, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate as ``config`` says; returns the metrics of ``result.json``.

    Every image counts exactly once, whatever the number of ranks. Writes ``confusion.npy`` (int64
    ``[sizes, classes, classes]``, true class by row), ``images.csv`` (mIoU and pixel accuracy of each image at each
    size), the overlays of the first size, and the export where it is asked for.
    """
    what = config.evaluation
    weights = Path(config.weights) if config.weights else RunFolder(config.run).model_pt
    model = load_any(weights, what.eval_precision, session.memory_format)
    if what.eval_precision == "bf16":
        precision = choose_precision("bf16", session.cpu, Ipex(None, "not used in evaluation"))
        session.decide("precision", f"bf16 ({precision.reason})")
        if precision.warning:
            session.warn(precision.warning)
    labels = model.info.labels
    ids = LabelIds(labels) if what.export else None
    if ids and not ids.official:
        session.warn(
            f"--export with {labels.name}: a class of several labels gets its first one's id; the official "
            "benchmark takes cityscapes19"
        )
    root = data_root(session, config.dataset, config.run)
    images = open_split(session, config.dataset, root, what.split, labels)
    session.log(
        f"{model.info.model} {model.precision}, label set {labels.name}: {len(images)} images of {what.split} "
        f"at {', '.join(what.sizes)}"
    )

    session.on_main(partial(forget_pictures, session.step))
    sizes: dict[str, Any] = {}
    confusions, rows = [], []
    shown, shown_by = list[Shown](), config.name
    for size in what.sizes:
        view = View.of(what, size)
        score = score_at(session, model.net, images, view, size, len(labels), ids)
        by_image: dict[int, tuple[float, float]] = {}
        for part in session.collectives.gather(score.by_image):
            by_image |= part
        rows += [(size, images.samples[index].stem, *by_image[index]) for index in sorted(by_image)]
        if size == what.sizes[0]:
            shown, shown_by = session.on_main(partial(pick, config, model.precision, images, by_image))
            show(session, model, images, view, shown)
        confusions.append(score.confusion.matrix.numpy())
        sizes[size] = {
            "loss": round(score.loss, 6),
            **score.confusion.scores(labels.classes, what.absent, categories_of(labels)),
            **time_spent(session, score),
            **timings(session, model, what, size),
        }
        session.log(summary(size, sizes[size]))
    if session.is_main:
        write_matrix(session, confusions)
        write_atomic(session.step.path / "images.csv", image_rows(rows))
    return {
        "model": model.info.model,
        "width": model.info.width,
        "precision": model.precision,
        "labels": labels.name,
        "classes": list(labels.classes),
        "colors": [list(color) for color in labels.colors],
        "parameters_m": round(model.info.parameters / 1e6, 4),
        "size_mb": round(model.file_bytes / 1e6, 3),
        "split": what.split,
        "images": len(images),
        "absent_classes": what.absent,
        "passes_per_image": View.of(what, what.sizes[0]).passes,
        "shown": [
            {"stem": images.samples[one.index].stem, "role": one.role, "miou_pct": percent(one.miou)} for one in shown
        ],
        "shown_by": shown_by,
        "sizes": sizes,
    }


def score_at(
    session: Session, net: Net, images: WholeImages, view: View, size: str, classes: int, ids: LabelIds | None
) -> Score:
    """The score over all ranks at one input size; ``ids`` exports the predictions meanwhile.

    Raises:
        RuntimeError: where not every image was counted exactly once.
    """
    own = shard(len(images), session.ranks)
    each = ROUND if ids else max(len(images), 1)
    most = -(-len(images) // session.ranks.world)  # every rank takes part in every round, also with nothing left
    score = Score(Confusion(classes))
    files: dict[str, bytes] = {}
    with Progress(size, len(own), session.is_main) as progress:

        def on_image(index: int, prediction: Any) -> None:
            if ids:
                files[images.samples[index].stem + SUFFIX] = ids.png(prediction.numpy())
            progress.step()

        for begin in range(0, most, each):
            score_images(net, images, own[begin : begin + each], view, classes, on_image=on_image, into=score)
            if ids:
                write_files(session, session.step.path / "export" / size, files)
                files.clear()
    score.sum_over(session.collectives)
    if score.images != len(images):
        raise RuntimeError(f"{score.images} images were counted, the split has {len(images)}")
    return score


def forget_pictures(step: StepFolder) -> None:
    """Remove the overlays and exports of an earlier evaluation, so that none of them pass for this one's."""
    for folder in (step.overlays, step.path / "export"):
        if folder.is_dir():
            shutil.rmtree(folder)


def write_files(session: Session, folder: Path, files: dict[str, bytes]) -> None:
    """Bring the files of all ranks to rank 0, which writes them."""
    for part in session.collectives.gather(files):
        for name, data in part.items() if session.is_main else ():
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


def show(session: Session, model: Model, images: WholeImages, view: View, shown: list[Shown]) -> None:
    """Predict the images ``shown`` once more, shared among the ranks; rank 0 writes their pictures."""
    own = [one.index for one in shown][session.ranks.rank :: session.ranks.world]
    predictions: dict[int, Any] = {}

    def keep(index: int, prediction: Any) -> None:
        predictions[index] = prediction.numpy()

    score_images(model.net, images, own, view, len(model.info.labels), on_image=keep)
    for part in session.collectives.gather(predictions):
        for index, prediction in part.items() if session.is_main else ():
            image, truth = images[index]
            stem = images.samples[index].stem
            write_overlay(session.step.overlays, stem, image, truth, prediction, model.info.labels)


def time_spent(session: Session, score: Score) -> dict[str, Any]:
    """``seconds`` by part, summed over the ranks, the net's share of them, and ``scoring_s`` of the slowest rank."""
    ranks = session.collectives.gather(score.seconds)
    seconds = {part: round(sum(rank[part] for rank in ranks), 3) for part in PARTS}
    return {
        "scoring_s": round(max(sum(rank.values()) for rank in ranks), 3),
        "seconds": seconds,
        "net_share_pct": percent(seconds["net"] / max(sum(seconds.values()), 1e-9)),
    }


def timings(session: Session, model: Model, what: EvaluationConfig, size: str) -> dict[str, Any]:
    """Latency of the net as it is (eager), of the same net traced and frozen, and GMACs.

    One network at a time on rank 0. The other ranks sleep; they hear from it after every pass, so that a slow net
    does not look like a lost one. With a window, the window is what is timed.
    """
    timed = what.window or size
    passes = partial(time_passes, size=parse_size(timed), runs=what.latency_runs, warmup=what.latency_warmup)
    found: dict[str, Any] = {"latency_input": timed}
    found |= last(session, lambda: passes(model.net))
    macs = session.on_main(lambda: model.macs_at(timed))
    found["gmacs"] = None if macs is None else round(macs / 1e9, 3)
    of_traced = last(session, lambda: chain.from_iterable(passes(net) for net in [model.traced()] if net))
    kept = [name for name in of_traced if name.startswith(("latency_ms", "images_per_s", "peak_memory_mb"))]
    return found | {f"traced_{name}": of_traced[name] for name in kept}


def last(session: Session, begin: Callable[[], Iterable[Passed]]) -> dict[str, Any]:
    """What the iterator that ``begin`` makes yields last, on every rank; it runs on rank 0, step by step."""
    steps = iter(begin() if session.is_main else ())
    found: dict[str, Any] = {}

    def step() -> tuple[bool, Passed]:
        for value in steps:
            return True, value
        return False, None

    while True:
        more, value = session.on_main(step)
        if not more:
            return found
        found = value or {}


def write_matrix(session: Session, confusions: list[Any]) -> None:
    """Write ``confusion.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, np.stack(confusions))
    write_atomic(session.step.confusion_npy, buffer.getvalue())


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
