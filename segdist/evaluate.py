"""Score a model, fp32 or int8, on a split at several input sizes, and time it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segdist.config import EvaluateConfig, EvaluationConfig, parse_size
from segdist.data.dataset import WholeImages
from segdist.data.labels import LabelSet
from segdist.data.sampling import shard
from segdist.int8 import load_int8
from segdist.latency import measure_latency
from segdist.models.build import count_macs
from segdist.models.files import ModelInfo, load_model
from segdist.models.inference import Net
from segdist.overlays import spread, write_overlay
from segdist.progress import Progress
from segdist.results import RunFolder, write_atomic
from segdist.scoring import Score, score_images
from segdist.session import Session
from segdist.splits import data_root, open_split

INT8_SUFFIX = ".torchscript"


@dataclass(frozen=True)
class Model:
    """A loaded model: the net, what it is, its precision, its file's size, and the fp32 module where it is one."""

    net: Net
    info: ModelInfo
    precision: str
    file_bytes: int
    module: nn.Module | None
    macs: dict[str, int]

    def macs_at(self, size: str) -> int | None:
        """Multiply-adds of one image; for an int8 model as its fp32 original was counted, None at other sizes."""
        if self.module is not None:
            return count_macs(self.module, parse_size(size))
        return self.macs.get(size)


def load_any(path: Path) -> Model:
    """Load a ``model.pt`` or a ``model_int8.torchscript``.

    Raises:
        ConfigError: where it is missing or is neither.
    """
    if path.suffix == INT8_SUFFIX:
        net, metadata = load_int8(path)
        return Model(net, ModelInfo.from_plain(metadata["info"]), "int8", path.stat().st_size, None, metadata["macs"])
    module, info = load_model(path)
    return Model(module, info, "fp32", path.stat().st_size, module, {})


def evaluate(session: Session, config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate as ``config`` says; returns the metrics of ``result.json``.

    Every image counts exactly once, whatever the number of ranks. Writes ``confusion.npy`` (int64
    ``[sizes, classes, classes]``, true class by row) and the overlays of the first size.
    """
    what = config.evaluation
    model = load_any(Path(config.weights) if config.weights else RunFolder(config.run).model_pt)
    labels = model.info.labels
    if model.module is not None:
        model.module.to(memory_format=session.memory_format)  # type: ignore[call-overload]
    root = data_root(session, config.dataset, config.run)
    images = open_split(session, config.dataset, root, what.split, labels)
    session.log(
        f"{model.info.model} {model.precision}, label set {labels.name}: {len(images)} images of {what.split} "
        f"at {', '.join(what.sizes)}"
    )

    sizes, confusions = {}, []
    for size in what.sizes:
        shown = spread(len(images), what.overlays) if size == what.sizes[0] else []
        score = score_at(session, model, images, size, shown)
        confusions.append(score.confusion.matrix.numpy())
        sizes[size] = {
            "loss": round(score.loss, 6),
            **score.confusion.scores(labels.classes),
            **session.on_main(partial(timings, model, size, what)),
        }
        session.log(
            f"{size}: mIoU {sizes[size]['miou_pct']:.2f} %, pixel accuracy {sizes[size]['pixel_accuracy_pct']:.2f} %, "
            f"{sizes[size]['latency_ms_p50']:.1f} ms an image"
        )
    if session.is_main:
        buffer = io.BytesIO()
        np.save(buffer, np.stack(confusions))
        write_atomic(session.step.confusion_npy, buffer.getvalue())
    return {
        "model": model.info.model,
        "width": model.info.width,
        "precision": model.precision,
        "labels": labels.name,
        "classes": list(labels.classes),
        "colors": [list(color) for color in labels.colors],
        "parameters_m": round(model.info.parameters / 1e6, 4),
        "size_mb": round(model.file_bytes / 1e6, 3),
        "images": len(images),
        "sizes": sizes,
    }


def score_at(session: Session, model: Model, images: WholeImages, size: str, shown: list[int]) -> Score:
    """The score over all ranks at one input size; writes the overlays of the images ``shown``.

    Raises:
        RuntimeError: where not every image was counted exactly once.
    """
    predictions: dict[int, Tensor] = {}
    own = shard(len(images), session.ranks)
    with Progress(size, len(own), session.is_main) as progress:

        def on_image(index: int, prediction: Tensor) -> None:
            if index in shown:
                predictions[index] = prediction
            progress.step()

        score = score_images(model.net, images, own, parse_size(size), len(model.info.labels), on_image=on_image)
    score.sum_over(session.collectives)
    if score.images != len(images):
        raise RuntimeError(f"{score.images} images were counted, the split has {len(images)}")
    write_overlays(session, images, predictions, model.info.labels)
    return score


def timings(model: Model, size: str, what: EvaluationConfig) -> dict[str, Any]:
    """Latency of the net as it is (fp32: eager), of the fp32 net traced and frozen, and GMACs."""
    pixels = parse_size(size)
    found: dict[str, Any] = measure_latency(model.net, pixels, what.latency_runs, what.latency_warmup)
    macs = model.macs_at(size)
    found["gmacs"] = None if macs is None else round(macs / 1e9, 3)
    if model.module is not None:
        example = torch.zeros(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            traced = torch.jit.freeze(torch.jit.trace(model.module, example))
        of_traced = measure_latency(traced, pixels, what.latency_runs, what.latency_warmup)
        found |= {f"traced_{name}": of_traced[name] for name in ("latency_ms_p50", "latency_ms_p95")}
    return found


def write_overlays(session: Session, images: WholeImages, predictions: dict[int, Tensor], labels: LabelSet) -> None:
    """Bring the chosen predictions of all ranks to rank 0, which writes their pictures."""
    for part in session.collectives.gather({index: p.numpy() for index, p in predictions.items()}):
        for index, prediction in part.items() if session.is_main else ():
            image, truth = images[index]
            write_overlay(session.step.overlays, images.samples[index].stem, image, truth, prediction, labels)
