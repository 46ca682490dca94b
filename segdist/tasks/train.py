"""Train a net, one process per rank (DDP), and score it on the validation split after every epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from segdist.config import TrainConfig, TrainingConfig, parse_size, require
from segdist.data.cityscapes import WholeImages
from segdist.data.labels import load_label_set
from segdist.data.sampler import StepSampler, shard
from segdist.evaluation.scoring import Score, score_images
from segdist.models.aux_head import AuxHeadNet, without_aux_head
from segdist.models.build import build_net, count_parameters
from segdist.models.init_weights import load_initial
from segdist.models.model_file import ModelInfo
from segdist.runtime.ipex import load_ipex
from segdist.runtime.precision import Precision, choose_precision, wants_bf16
from segdist.runtime.rank_context import RankContext
from segdist.system.progress import Progress
from segdist.tasks.dataset import data_root, open_split
from segdist.training.checkpointer import Checkpointer
from segdist.training.crops import class_weights, crop_loader
from segdist.training.ddp import average_batch_norm_stats, distribute
from segdist.training.ema import ExponentialMovingAverage
from segdist.training.loss import PixelLoss
from segdist.training.optimizer import build_optimizer
from segdist.training.state import TrainProgress, fingerprint
from segdist.training.step import TrainStep
from segdist.training.sync_batchnorm import synchronize_batchnorm

MOST_LEFT_OUT = 10
"""With --on-nan skip: steps in a row that may be left out before the training ends."""


def train(context: RankContext, config: TrainConfig) -> dict[str, Any]:
    """Train as ``config`` says, from the newest checkpoint where there is one; returns the metrics of ``result.json``.

    Writes ``metrics.jsonl`` (a row an epoch), ``steps.jsonl`` (a row a step), ``checkpoints`` and ``model.pt``, the
    weights of the best epoch (by mIoU).

    Raises:
        Preempted: after a signal, once everything is saved.
    """
    cfg, labels = config.training, load_label_set(config.dataset.labels)
    root = data_root(context, config.dataset, config.run)
    splits = {split: open_split(context, config.dataset, root, split, labels) for split in ("train", "val")}
    sampler = StepSampler(len(splits["train"]), cfg.batch, context.ranks, cfg.seed)
    loader = crop_loader(splits["train"], sampler, config)
    require(
        sampler.batch >= context.ranks.world * cfg.accumulate,
        f"--accumulate {cfg.accumulate}: {context.ranks.world} ranks share {sampler.batch} images a step; "
        f"give a --batch of at least {context.ranks.world * cfg.accumulate}, or fewer parts",
    )
    steps = len(sampler) * cfg.epochs
    weights = class_weights(splits["train"], context, len(labels), cfg.class_balance)

    torch.manual_seed(cfg.seed)
    net = build_net(config.net.model, len(labels), config.net.width)
    info = ModelInfo(config.net.model, config.net.width, labels, count_parameters(net))
    if config.net.init is not None:
        for line in load_initial(net, *config.net.init).lines():
            context.log(line)
    if cfg.aux_weight > 0:
        net = AuxHeadNet(net, len(labels))
    wanted = context.runtime.precision
    ipex = load_ipex(context.runtime.ipex, context.cpu, wants_bf16(wanted, context.cpu))
    context.record_choice("ipex", ipex.reason)
    precision = choose_precision(wanted, context.cpu, ipex)
    context.record_choice("precision", f"{precision.name} ({precision.reason})")
    if precision.warning:
        context.warn(precision.warning)
    net = net.to(memory_format=context.memory_format)  # type: ignore[call-overload]
    optimizer = build_optimizer(net, cfg)
    ema = ExponentialMovingAverage(without_aux_head(net), cfg.ema) if cfg.ema > 0 else None
    of_run = fingerprint(config, labels, splits["train"].samples)
    checkpointer = Checkpointer(context, config, of_run, info, precision.name, len(sampler))
    position = checkpointer.resume(net, optimizer, ema)
    net, optimizer = precision.prepare(ipex, net, optimizer)
    if cfg.sync_batchnorm and context.ranks.world > 1:
        net = synchronize_batchnorm(net, context.collectives.new_group())
    trained = distribute(net, context, precision)
    loss = PixelLoss(weights, cfg.label_smoothing, cfg.ohem, cfg.ohem_keep)
    train_step = TrainStep(trained, net, optimizer, ema, context, precision, loss, cfg, steps)
    context.log(
        f"{info.model}: {info.parameters / 1e6:.2f} M parameters; {len(splits['train'])} images, "
        f"{len(sampler)} steps of {sampler.batch} an epoch, {cfg.epochs} epochs"
    )

    clock = time.monotonic() - position.elapsed
    while position.epoch < cfg.epochs:
        net.train()
        train_epoch(train_step, loader, sampler, position, checkpointer, splits["train"], clock)
        row_step = (position.epoch + 1) * len(sampler)
        average_batch_norm_stats(net, context)
        kept = without_aux_head(net)
        with ema.swapped_in(kept) if ema is not None else contextlib.nullcontext():
            score = validate(kept, splits["val"], context, precision, cfg.val_size, len(labels), row_step - 1)
        if score is None:
            checkpointer.stop(position, net, optimizer, ema)
        require_trained(position, score.loss, cfg, checkpointer)
        images = len(sampler) * sampler.batch
        row = {
            "epoch": position.epoch + 1,
            "step": row_step,
            "lr": train_step.lr(row_step - 1),
            "train_loss": round(position.loss_sum / max(position.weight_sum, 1e-6), 6),
            "val_loss": round(score.loss, 6),
            **score.confusion.scores(labels.classes),
            "images_per_s": round(images / position.seconds, 3),
            "time_per_image_ms": round(1000 * position.seconds / images, 3),
            "elapsed_s": round(time.monotonic() - clock, 3),
        }
        context.log(
            f"epoch {row['epoch']}/{cfg.epochs}: loss {row['train_loss']:.3f}, "
            f"validation loss {row['val_loss']:.3f}, mIoU {row['miou_pct']:.1f} %, "
            f"pixel accuracy {row['pixel_accuracy_pct']:.1f} %, {row['images_per_s']:.1f} images/s"
        )
        position.elapsed = time.monotonic() - clock
        checkpointer.end_epoch(position, row, train_step.lr, net, optimizer, ema)
    checkpointer.finish()
    row, best_row = position.rows[-1], position.best_row
    assert best_row is not None
    return {
        "model": info.model,
        "width": info.width,
        "labels": labels.name,
        "classes": list(labels.classes),
        "colors": [list(color) for color in labels.colors],
        "parameters_m": round(info.parameters / 1e6, 4),
        "epochs": cfg.epochs,
        "steps": steps,
        "best_epoch": best_row["epoch"],
        "best_miou_pct": best_row["miou_pct"],
        **{name: row[name] for name in ("miou_pct", "pixel_accuracy_pct", "train_loss", "val_loss")},
        **{name: row[name] for name in ("images_per_s", "time_per_image_ms")},
        **checkpointer.figures(),
    }


def train_epoch(
    train_step: TrainStep,
    loader: DataLoader[Any],
    sampler: StepSampler,
    position: TrainProgress,
    checkpointer: Checkpointer,
    images: WholeImages,
    clock: float,
) -> None:
    """Do what is left of the running epoch's steps, saving on the way.

    Raises:
        Preempted: after a signal, once everything is saved.
        FloatingPointError: for a loss or gradient that is not finite, naming the step and the samples.
    """
    sampler.epoch, sampler.first = position.epoch, position.batch
    if position.batch == len(sampler):  # stopped between the last step and the end of the validation
        return
    context, optimizer, ema = train_step.context, train_step.optimizer, train_step.ema
    what = f"epoch {position.epoch + 1}/{train_step.cfg.epochs}"
    report = context.report_progress(position.epoch, len(sampler), train_step.cfg.epochs)
    with Progress(what, len(sampler), context.is_rank0, report=report) as progress:
        progress.update_to(position.batch)
        start = time.monotonic() - position.seconds
        batches = iter(loader)
        for batch in range(position.batch, len(sampler)):
            step = position.epoch * len(sampler) + batch
            context.heartbeat(step, "waits for its images")
            crops, labels = next(batches)
            context.heartbeat(step, "forward pass")
            end = train_step(crops, labels, step, checkpointer.is_due(), checkpointer)
            if end.bad_ranks:
                bad = [
                    index
                    for rank in end.bad_ranks
                    for index in sampler.steps(position.epoch)[batch][rank :: context.ranks.world]
                ]
                report_not_finite(
                    position.skip_step(),
                    step,
                    [images.samples[index].image.name for index in bad],
                    train_step,
                    checkpointer,
                )
            else:
                position.count(end.loss_sum, end.weight)
            now = time.monotonic()
            position.seconds, position.elapsed = now - start, now - clock
            progress.step(f"loss {end.loss:.3f}")
            context.heartbeat(step, "saves")
            if end.stop:
                checkpointer.stop(position, train_step.module, optimizer, ema)
            if end.save:
                checkpointer.save(position, train_step.module, optimizer, ema)


def report_not_finite(
    in_a_row: int, step: int, names: list[str], train_step: TrainStep, checkpointer: Checkpointer
) -> None:
    """Say which samples made a step not finite; raises FloatingPointError where that ends the training."""
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    text = f"step {step + 1}: the loss or its gradient is not finite, with {shown}"
    if train_step.cfg.on_nan == "skip" and in_a_row < MOST_LEFT_OUT:
        train_step.context.warn(f"{text}; the step is left out")
        return
    again = f", the {in_a_row}th in a row" if in_a_row > 1 else ""
    raise FloatingPointError(
        f"{text}{again}; --lr {train_step.cfg.lr} may be too large, or --on-nan skip leaves such steps out; "
        + checkpointer.last_saved()
    )


def require_trained(
    position: TrainProgress, validation_loss: float, cfg: TrainingConfig, checkpointer: Checkpointer
) -> None:
    """Refuse an epoch that says nothing; raises FloatingPointError."""
    if position.losses and all(loss is None for loss in position.losses):
        what = f"each of its {len(position.losses)} steps was left out, as its loss or gradient was not finite"
    elif not math.isfinite(validation_loss):
        what = f"the validation loss is {validation_loss}"
    else:
        return
    raise FloatingPointError(
        f"epoch {position.epoch + 1}: {what}; --lr {cfg.lr} may be too large; {checkpointer.last_saved()}"
    )


def validate(
    net: nn.Module,
    images: WholeImages,
    context: RankContext,
    precision: Precision,
    val_size: str,
    classes: int,
    step: int,
) -> Score | None:
    """Score the net on the validation split, each rank taking its share; None where a signal asks to stop."""
    net.eval()
    size = None if val_size == "label" else parse_size(val_size)

    def own() -> Iterator[int]:
        for index in shard(len(images), context.ranks):
            context.heartbeat(step, "validates")
            if context.stop:
                return
            yield index

    score = score_images(net, images, own(), size, classes, precision.autocast())
    context.heartbeat(step, "adds up the validation")
    score.sum_over(context.collectives)
    return score if score.images == len(images) else None
