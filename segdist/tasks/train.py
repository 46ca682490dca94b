"""Train a net, one process per rank (DDP), and score it on the validation split after every epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from segdist.config import ConfigError, TrainConfig, TrainingConfig, parse_size
from segdist.data.cityscapes import WholeImages
from segdist.data.labels import LabelSet, load_label_set
from segdist.data.sampler import shard
from segdist.evaluation.metrics import ConfusionMatrix
from segdist.evaluation.scoring import Score, score_images
from segdist.evaluation.tta import InferenceMode
from segdist.models.aux_head import AuxHeadNet, without_aux_head
from segdist.models.build import build_net, count_parameters
from segdist.models.init_weights import load_init_weights
from segdist.models.model_file import ModelInfo
from segdist.runtime.rank_context import RankContext
from segdist.system.memory import peak_memory_mb
from segdist.system.progress import Progress
from segdist.tasks.dataset import open_splits
from segdist.tasks.train_choices import distribute, keep_choices, select_precision
from segdist.training.checkpointer import Checkpointer
from segdist.training.crops import CropLoader, class_weights, require_batchnorm_values
from segdist.training.ddp import average_running_stats
from segdist.training.ema import ExponentialMovingAverage
from segdist.training.loss import PixelCrossEntropy
from segdist.training.optimizer import build_optimizer
from segdist.training.state import TrainProgress, TrainState, fingerprint
from segdist.training.step import TrainStep
from segdist.training.sync_batchnorm import convert_sync_batchnorm

MAX_SKIPPED_STEPS = 10
"""With --on-nan skip: the training ends when so many steps in a row were not finite."""


def train(context: RankContext, config: TrainConfig) -> dict[str, Any]:
    """Train as ``config`` says, from the newest checkpoint where there is one; returns the metrics of ``result.json``.

    Writes ``metrics.jsonl`` (a row an epoch), ``steps.jsonl`` (a row a step), ``checkpoints`` and ``model.pt``, the
    weights of the best epoch (by mIoU).

    Raises:
        Preempted: after a signal, once everything is saved.
    """
    cfg, labels = config.training, load_label_set(config.dataset.labels)
    train_images, val_images = open_splits(context, config.dataset, config.run, ("train", "val"), labels)
    loader = CropLoader(train_images, config, context.ranks)
    require_batchnorm_values(config, loader, context.ranks)
    weights = class_weights(train_images, context, len(labels), cfg.class_balance)
    criterion = PixelCrossEntropy(weights, cfg.label_smoothing, cfg.ohem, cfg.ohem_keep)

    precision, ipex = select_precision(context)
    net, info = create_net(context, config, labels)
    ema = ExponentialMovingAverage(without_aux_head(net), cfg.ema) if cfg.ema > 0 else None
    state = TrainState(net, build_optimizer(net, cfg), ema, context.collectives, steps_per_epoch=len(loader))
    run = fingerprint(config, labels, train_images.samples)
    checkpointer = Checkpointer(context, config, info, run, precision.name)
    checkpointer.resume(state)
    state.net, state.optimizer = precision.prepare(ipex, state.net, state.optimizer)
    if cfg.sync_batchnorm and context.ranks.world > 1:
        state.net = convert_sync_batchnorm(state.net, context.collectives.new_group())
    keep_choices(context, precision)
    distributed = distribute(context, state.net, precision, cfg)
    train_step = TrainStep(state, distributed, criterion, context, precision, cfg)
    context.log(
        f"{info.model}: {info.parameters / 1e6:.2f} M parameters; {len(train_images)} images, "
        f"{len(loader)} steps of {loader.batch_size} an epoch, {cfg.epochs} epochs"
    )

    state.start_clock()
    while state.progress.epoch < cfg.epochs:
        train_one_epoch(state, train_step, loader, checkpointer)
        average_running_stats(state.net, context)
        score = None
        if is_validated(state.progress.epoch, cfg):
            score = validate(state, train_step, val_images, len(labels))
            if score is None:
                checkpointer.stop(state)
        require_trained(state.progress, score, cfg, checkpointer)
        row = epoch_row(state, score, labels, loader.batch_size, train_step.lr(state.step - 1))
        log_epoch(context, row, cfg.epochs)
        checkpointer.end_epoch(state, row)
    checkpointer.finish()
    peak = max(context.collectives.all_gather(peak_memory_mb()))
    return training_metrics(state.progress, info, state.step) | {"peak_memory_mb": peak} | checkpointer.metrics()


def is_validated(epoch: int, cfg: TrainingConfig) -> bool:
    """Whether the model is scored after an epoch (from 0): each ``val_every``-th, and the last."""
    return (epoch + 1) % cfg.val_every == 0 or epoch + 1 == cfg.epochs


def create_net(context: RankContext, config: TrainConfig, labels: LabelSet) -> tuple[nn.Module, ModelInfo]:
    """The net with its first weights, with an auxiliary head where it gets one, and what its ``model.pt`` is."""
    torch.manual_seed(config.training.seed)
    net = build_net(config.net.model, len(labels), config.net.width)
    info = ModelInfo(config.net.model, config.net.width, labels, count_parameters(net))
    if config.net.init is not None:
        for line in load_init_weights(net, *config.net.init).lines():
            context.log(line)
    if config.training.aux_weight > 0:
        net = AuxHeadNet(net, len(labels))
    net.to(memory_format=context.memory_format)  # type: ignore[call-overload]
    return net, info


def train_one_epoch(state: TrainState, train_step: TrainStep, loader: CropLoader, checkpointer: Checkpointer) -> None:
    """Do what is left of the running epoch's steps, saving on the way.

    Raises:
        Preempted: after a signal, once everything is saved.
        FloatingPointError: for a loss or gradient that is not finite, naming the step and the samples.
    """
    progress, context, epochs = state.progress, train_step.context, train_step.cfg.epochs
    if progress.batch == len(loader):  # stopped between the last step and the end of the validation
        return
    state.net.train()
    report = context.report_progress(progress.epoch, len(loader), epochs)
    with Progress(f"epoch {progress.epoch + 1}/{epochs}", len(loader), context.is_rank0, report=report) as bar:
        bar.update_to(progress.batch)
        start = time.monotonic() - progress.seconds
        batches = loader.batches(progress.epoch, progress.batch)
        for step in range(state.step, (progress.epoch + 1) * len(loader)):
            context.heartbeat(step, "waits for its images")
            images, labels = next(batches)
            context.heartbeat(step, "forward pass")
            result = train_step(images, labels, checkpointer.is_due(), checkpointer)
            if result.bad_ranks:
                names = loader.image_names(progress.epoch, progress.batch, result.bad_ranks)
                skip_or_fail(state, names, train_step, checkpointer)
            else:
                progress.count(result.loss_sum, result.weight)
            progress.seconds = time.monotonic() - start
            state.read_clock()
            bar.step(f"loss {result.loss:.3f}")
            context.heartbeat(step, "saves")
            if result.stop:
                checkpointer.stop(state)
            if result.save:
                checkpointer.save(state)


def skip_or_fail(state: TrainState, images: list[str], train_step: TrainStep, checkpointer: Checkpointer) -> None:
    """Skip a step that is not finite, and say with which images; FloatingPointError where that ends the training."""
    shown = ", ".join(images[:8]) + (f" and {len(images) - 8} more" if len(images) > 8 else "")
    text = f"step {state.step + 1}: the loss or its gradient is not finite, with {shown}"
    in_a_row = state.progress.skip_step()
    if train_step.cfg.on_nan == "skip" and in_a_row < MAX_SKIPPED_STEPS:
        train_step.context.warn(f"{text}; the step is left out")
        return
    again = f", the {in_a_row}th in a row" if in_a_row > 1 else ""
    raise FloatingPointError(
        f"{text}{again}; --lr {train_step.cfg.lr} may be too large, or --on-nan skip leaves such steps out; "
        + checkpointer.last_saved()
    )


def validate(state: TrainState, train_step: TrainStep, images: WholeImages, classes: int) -> Score | None:
    """Score the model on the validation split, each rank taking its share; None where a signal asks to stop.

    Where there is an EMA, its weights are scored.
    """
    context, cfg, model, step = train_step.context, train_step.cfg, state.model, state.step - 1
    model.eval()
    mode = InferenceMode(None if cfg.val_size == "label" else parse_size(cfg.val_size))
    score = Score(ConfusionMatrix(classes))

    def own() -> Iterator[int]:
        for index in shard(len(images), context.ranks):
            context.heartbeat(step, "validates")
            if context.stop:
                return
            yield index

    weights = state.ema.swapped_in(model) if state.ema is not None else contextlib.nullcontext()
    with weights, train_step.precision.autocast():
        score_images(model, images, own(), mode, score)
    context.heartbeat(step, "adds up the validation")
    score.all_reduce(context.collectives)
    return score if score.images == len(images) else None


def require_trained(
    progress: TrainProgress, score: Score | None, cfg: TrainingConfig, checkpointer: Checkpointer
) -> None:
    """Refuse an epoch that says nothing.

    Raises:
        ConfigError: where no validation pixel counts.
        FloatingPointError: where all steps were left out, or the validation loss is not finite.
    """
    if score is not None and score.confusion.pixels == 0:
        raise ConfigError(
            "--data: no pixel of the validation split belongs to a class of the label set, so nothing can be scored; "
            "give other --labels or other data"
        )
    if progress.losses and all(loss is None for loss in progress.losses):
        reason = f"each of its {len(progress.losses)} steps was left out, as its loss or gradient was not finite"
    elif score is not None and not math.isfinite(score.loss):
        reason = f"the validation loss is {score.loss}"
    else:
        return
    raise FloatingPointError(
        f"epoch {progress.epoch + 1}: {reason}; --lr {cfg.lr} may be too large; {checkpointer.last_saved()}"
    )


def epoch_row(state: TrainState, score: Score | None, labels: LabelSet, batch_size: int, lr: float) -> dict[str, Any]:
    """The row of ``metrics.jsonl`` of the epoch whose steps are all done; without scores where it was not validated."""
    progress, images = state.progress, state.steps_per_epoch * batch_size
    scores: dict[str, Any] = {}
    if score is not None:
        scores = {"val_loss": round(score.loss, 6), **score.confusion.scores(labels.classes)}
    return {
        "epoch": progress.epoch + 1,
        "step": state.step,
        "lr": lr,
        "train_loss": round(progress.loss, 6),
        **scores,
        "images_per_s": round(images / progress.seconds, 3),
        "time_per_image_ms": round(1000 * progress.seconds / images, 3),
        "elapsed_s": round(state.read_clock(), 3),
    }


def log_epoch(context: RankContext, row: dict[str, Any], epochs: int) -> None:
    """Say how the epoch went."""
    scores = ""
    if "miou_pct" in row:
        scores = (
            f"validation loss {row['val_loss']:.3f}, mIoU {row['miou_pct']:.1f} %, "
            f"pixel accuracy {row['pixel_accuracy_pct']:.1f} %, "
        )
    context.log(
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.3f}, {scores}{row['images_per_s']:.1f} images/s"
    )


def training_metrics(progress: TrainProgress, info: ModelInfo, steps: int) -> dict[str, Any]:
    """What ``result.json`` says of a training that is done: the model, the best epoch and the last one."""
    last, best = progress.rows[-1], progress.best_row
    assert best is not None
    kept = ("miou_pct", "pixel_accuracy_pct", "train_loss", "val_loss", "images_per_s", "time_per_image_ms")
    return {
        **info.describe(),
        "epochs": progress.epoch,
        "steps": steps,
        "best_epoch": best["epoch"],
        "best_miou_pct": best["miou_pct"],
        **{name: last[name] for name in kept},
    }
