"""Train a net, one process per rank (DDP), and score it on the validation split after every epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from segdist.config import STRIDE, TrainConfig, TrainingConfig, parse_size, require
from segdist.data.augment import Augment
from segdist.data.dataset import RandomCrops, WholeImages
from segdist.data.labels import load_label_set
from segdist.data.sampling import StepSampler, shard
from segdist.keeper import Keeper
from segdist.losses import PixelLoss
from segdist.models.auxiliary import WithAuxiliary, both_logits, inner_net
from segdist.models.build import build_net, count_parameters
from segdist.models.files import ModelInfo
from segdist.models.pretrained import load_initial
from segdist.optimizers import WeightAverage, build_optimizer
from segdist.progress import Progress
from segdist.runtime.ipex import load_ipex
from segdist.runtime.precision import Precision, choose_precision, wants_bf16
from segdist.scoring import Score, score_images
from segdist.session import Session
from segdist.signals import leave_signals_to_the_rank
from segdist.splits import data_root, open_split
from segdist.stepping import Stepper
from segdist.sync_batchnorm import synchronize_batchnorm
from segdist.training_state import Position, fingerprint

MOST_LEFT_OUT = 10
"""With --on-nan skip: steps in a row that may be left out before the training ends."""


def train(session: Session, config: TrainConfig) -> dict[str, Any]:
    """Train as ``config`` says, from the newest checkpoint where there is one; returns the metrics of ``result.json``.

    Writes ``metrics.jsonl`` (a row an epoch), ``steps.jsonl`` (a row a step), ``checkpoints`` and ``model.pt``, the
    weights of the best epoch (by mIoU).

    Raises:
        ToBeContinued: after a signal, once everything is saved.
    """
    how, labels = config.training, load_label_set(config.dataset.labels)
    root = data_root(session, config.dataset, config.run)
    splits = {split: open_split(session, config.dataset, root, split, labels) for split in ("train", "val")}
    sampler = StepSampler(len(splits["train"]), how.batch, session.ranks, how.seed)
    loader = crop_loader(splits["train"], sampler, config)
    require(
        sampler.batch >= session.ranks.world * how.accumulate,
        f"--accumulate {how.accumulate}: {session.ranks.world} ranks share {sampler.batch} images a step; "
        f"give a --batch of at least {session.ranks.world * how.accumulate}, or fewer parts",
    )
    steps = len(sampler) * how.epochs
    weights = class_weights(splits["train"], session, len(labels), how.class_balance)

    torch.manual_seed(how.seed)
    net = build_net(config.net.model, len(labels), config.net.width)
    info = ModelInfo(config.net.model, config.net.width, labels, count_parameters(net))
    if config.net.init is not None:
        for line in load_initial(net, *config.net.init).lines():
            session.log(line)
    if how.aux_weight > 0:
        net = WithAuxiliary(net, len(labels))
    wanted = session.runtime.precision
    ipex = load_ipex(session.runtime.ipex, session.cpu, wants_bf16(wanted, session.cpu))
    session.decide("ipex", ipex.reason)
    precision = choose_precision(wanted, session.cpu, ipex)
    session.decide("precision", f"{precision.name} ({precision.reason})")
    if precision.warning:
        session.warn(precision.warning)
    net = net.to(memory_format=session.memory_format)  # type: ignore[call-overload]
    optimizer = build_optimizer(net, how)
    average = WeightAverage(inner_net(net), how.ema) if how.ema > 0 else None
    of_run = fingerprint(config, labels, splits["train"].samples)
    keeper = Keeper(session, config, of_run, info, precision.name, len(sampler))
    position = keeper.resume(net, optimizer, average)
    net, optimizer = precision.prepare(ipex, net, optimizer)
    if how.sync_batchnorm and session.ranks.world > 1:
        net = synchronize_batchnorm(net, session.collectives.new_group())
    trained = distribute(net, session, precision)
    loss = PixelLoss(weights, how.label_smoothing, how.ohem, how.ohem_keep)
    stepper = Stepper(trained, net, optimizer, average, session, precision, loss, how, steps)
    session.log(
        f"{info.model}: {info.parameters / 1e6:.2f} M parameters; {len(splits['train'])} images, "
        f"{len(sampler)} steps of {sampler.batch} an epoch, {how.epochs} epochs"
    )

    clock = time.monotonic() - position.elapsed
    while position.epoch < how.epochs:
        net.train()
        train_epoch(stepper, loader, sampler, position, keeper, splits["train"], clock)
        row_step = (position.epoch + 1) * len(sampler)
        average_batch_norm(net, session)
        kept = inner_net(net)
        with average.in_place_of(kept) if average is not None else contextlib.nullcontext():
            score = validate(kept, splits["val"], session, precision, how.val_size, len(labels), row_step - 1)
        if score is None:
            keeper.stop(position, net, optimizer, average)
        require_trained(position, score.loss, how, keeper)
        images = len(sampler) * sampler.batch
        row = {
            "epoch": position.epoch + 1,
            "step": row_step,
            "lr": stepper.lr(row_step - 1),
            "train_loss": round(position.loss_sum / max(position.weight_sum, 1e-6), 6),
            "val_loss": round(score.loss, 6),
            **score.confusion.scores(labels.classes),
            "images_per_s": round(images / position.seconds, 3),
            "time_per_image_ms": round(1000 * position.seconds / images, 3),
            "elapsed_s": round(time.monotonic() - clock, 3),
        }
        session.log(
            f"epoch {row['epoch']}/{how.epochs}: loss {row['train_loss']:.3f}, "
            f"validation loss {row['val_loss']:.3f}, mIoU {row['miou_pct']:.1f} %, "
            f"pixel accuracy {row['pixel_accuracy_pct']:.1f} %, {row['images_per_s']:.1f} images/s"
        )
        position.elapsed = time.monotonic() - clock
        keeper.end_epoch(position, row, stepper.lr, net, optimizer, average)
    keeper.finish()
    row, best_row = position.rows[-1], position.best_row
    assert best_row is not None
    return {
        "model": info.model,
        "width": info.width,
        "labels": labels.name,
        "classes": list(labels.classes),
        "colors": [list(color) for color in labels.colors],
        "parameters_m": round(info.parameters / 1e6, 4),
        "epochs": how.epochs,
        "steps": steps,
        "best_epoch": best_row["epoch"],
        "best_miou_pct": best_row["miou_pct"],
        **{name: row[name] for name in ("miou_pct", "pixel_accuracy_pct", "train_loss", "val_loss")},
        **{name: row[name] for name in ("images_per_s", "time_per_image_ms")},
        **keeper.figures(),
    }


def train_epoch(
    stepper: Stepper,
    loader: DataLoader[Any],
    sampler: StepSampler,
    position: Position,
    keeper: Keeper,
    images: WholeImages,
    clock: float,
) -> None:
    """Do what is left of the running epoch's steps, saving on the way.

    Raises:
        ToBeContinued: after a signal, once everything is saved.
        FloatingPointError: for a loss or gradient that is not finite, naming the step and the samples.
    """
    sampler.epoch, sampler.first = position.epoch, position.batch
    if position.batch == len(sampler):  # stopped between the last step and the end of the validation
        return
    session, optimizer, average = stepper.session, stepper.optimizer, stepper.average
    what = f"epoch {position.epoch + 1}/{stepper.how.epochs}"
    report = session.report_progress(position.epoch, len(sampler), stepper.how.epochs)
    with Progress(what, len(sampler), session.is_main, report=report) as progress:
        progress.to(position.batch)
        start = time.monotonic() - position.seconds
        batches = iter(loader)
        for batch in range(position.batch, len(sampler)):
            step = position.epoch * len(sampler) + batch
            session.at(step, "waits for its images")
            crops, labels = next(batches)
            session.at(step, "forward pass")
            end = stepper(crops, labels, step, keeper.is_due(), keeper)
            if end.bad_ranks:
                bad = [
                    index
                    for rank in end.bad_ranks
                    for index in sampler.steps(position.epoch)[batch][rank :: session.ranks.world]
                ]
                report_not_finite(
                    position.leave_out(), step, [images.samples[index].image.name for index in bad], stepper, keeper
                )
            else:
                position.count(end.loss_sum, end.weight)
            now = time.monotonic()
            position.seconds, position.elapsed = now - start, now - clock
            progress.step(f"loss {end.loss:.3f}")
            session.at(step, "saves")
            if end.stop:
                keeper.stop(position, stepper.bare, optimizer, average)
            if end.save:
                keeper.save(position, stepper.bare, optimizer, average)


def report_not_finite(in_a_row: int, step: int, names: list[str], stepper: Stepper, keeper: Keeper) -> None:
    """Say which samples made a step not finite; raises FloatingPointError where that ends the training."""
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    text = f"step {step + 1}: the loss or its gradient is not finite, with {shown}"
    if stepper.how.on_nan == "skip" and in_a_row < MOST_LEFT_OUT:
        stepper.session.warn(f"{text}; the step is left out")
        return
    again = f", the {in_a_row}th in a row" if in_a_row > 1 else ""
    raise FloatingPointError(
        f"{text}{again}; --lr {stepper.how.lr} may be too large, or --on-nan skip leaves such steps out; "
        + keeper.last_saved()
    )


def require_trained(position: Position, validation_loss: float, how: TrainingConfig, keeper: Keeper) -> None:
    """Refuse an epoch that says nothing; raises FloatingPointError."""
    if position.losses and all(loss is None for loss in position.losses):
        what = f"each of its {len(position.losses)} steps was left out, as its loss or gradient was not finite"
    elif not math.isfinite(validation_loss):
        what = f"the validation loss is {validation_loss}"
    else:
        return
    raise FloatingPointError(
        f"epoch {position.epoch + 1}: {what}; --lr {how.lr} may be too large; {keeper.last_saved()}"
    )


def crop_loader(images: WholeImages, sampler: StepSampler, config: TrainConfig) -> DataLoader[Any]:
    """This rank's batches: images uint8 ``[n, h, w, 3]`` and train ids uint8 ``[n, h, w]``."""
    how = config.training
    augment = Augment(parse_size(how.crop), (how.scale_min, how.scale_max), how.flip)
    workers = config.dataset.workers
    return DataLoader(
        RandomCrops(images, augment, how.seed),  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=leave_signals_to_the_rank,
        generator=torch.Generator(),  # the loader draws from it, and leaves the rank's random numbers alone
    )


def distribute(net: nn.Module, session: Session, precision: Precision) -> nn.Module:
    """The net as DDP trains it; itself where there is one rank.

    DDP orders its buckets anew after the first backward pass, and with the order the rounding of sums over more than
    two ranks changes. So a pass over nothing comes first: a resumed training then adds in the same order as one that
    was never stopped.
    """
    if session.ranks.world == 1:
        return net
    distributed = DistributedDataParallel(
        net,
        process_group=session.collectives.gradient_group,
        broadcast_buffers=False,  # batch normalization's averages are united once an epoch, over all ranks
        gradient_as_bucket_view=True,
    )
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()
    for _ in range(2):  # the second one's forward pass makes the new buckets
        with precision.autocast():
            outputs = both_logits(distributed(torch.zeros(2, 3, 2 * STRIDE, 2 * STRIDE)))
        torch.stack([logits.float().sum() * 0 for logits in outputs if logits is not None]).sum().backward()
    net.zero_grad(set_to_none=True)
    for name, buffer in net.named_buffers():
        buffer.copy_(buffers[name])
    return distributed


def class_weights(images: WholeImages, session: Session, classes: int, balance: float) -> Tensor:
    """Weight of each class in the loss: (its share of the split's pixels) ** -balance, their mean over pixels 1.

    The split's labels are counted once, each rank taking its share. A class that does not occur weighs 1.

    Shapes: → float32 ``[classes]``.
    """
    if balance == 0:
        return torch.ones(classes)
    counts = torch.zeros(256, dtype=torch.int64)
    for index in shard(len(images), session.ranks):
        counts += torch.bincount(torch.from_numpy(images.label(index)).flatten().long(), minlength=256)
    share = session.collectives.sum(counts)[:classes].double()
    share /= share.sum()
    weights = torch.where(share > 0, share**-balance, 1.0)
    return (weights / (weights * share).sum()).float()


def average_batch_norm(net: nn.Module, session: Session) -> None:
    """Replace batch normalization's running averages by their mean over all ranks; each saw other samples."""
    if session.ranks.world == 1:
        return
    buffers = [b for name, b in net.named_buffers() if name.endswith(("running_mean", "running_var"))]
    flat = session.collectives.sum(torch.cat([b.flatten().double() for b in buffers])) / session.ranks.world
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers])):
        buffer.copy_(mean.reshape(buffer.shape))


def validate(
    net: nn.Module,
    images: WholeImages,
    session: Session,
    precision: Precision,
    val_size: str,
    classes: int,
    step: int,
) -> Score | None:
    """Score the net on the validation split, each rank taking its share; None where a signal asks to stop."""
    net.eval()
    size = None if val_size == "label" else parse_size(val_size)

    def own() -> Iterator[int]:
        for index in shard(len(images), session.ranks):
            session.at(step, "validates")
            if session.stop:
                return
            yield index

    score = score_images(net, images, own(), size, classes, precision.autocast())
    session.at(step, "adds up the validation")
    score.sum_over(session.collectives)
    return score if score.images == len(images) else None
