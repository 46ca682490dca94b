"""Train a net, one process per rank (DDP), and score it on the validation split after every epoch."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from segdist.checkpoint import save_checkpoint
from segdist.config import TrainConfig, TrainingConfig, parse_size
from segdist.data.augment import Augment
from segdist.data.dataset import RandomCrops, WholeImages
from segdist.data.labels import IGNORE, load_label_set
from segdist.data.sampling import StepSampler, shard
from segdist.models.build import build_net, count_parameters
from segdist.models.files import ModelInfo, save_model
from segdist.models.inference import predict_logits, to_input
from segdist.models.pretrained import load_pretrained
from segdist.progress import Progress
from segdist.results import RunFolder, append_json_line
from segdist.runtime.ipex import load_ipex
from segdist.runtime.precision import Precision, choose_precision, wants_bf16
from segdist.scoring import Score, score_images
from segdist.session import Session
from segdist.splits import data_root, open_split


def train(session: Session, config: TrainConfig) -> dict[str, Any]:
    """Train as ``config`` says; returns the metrics of ``result.json``.

    Writes ``metrics.jsonl`` (a row an epoch), ``checkpoints/last.pt`` and ``best.pt`` (by mIoU), and ``model.pt``, the
    weights of the best epoch.
    """
    how, labels = config.training, load_label_set(config.dataset.labels)
    root = data_root(session, config.dataset, config.run)
    splits = {split: open_split(session, config.dataset, root, split, labels) for split in ("train", "val")}
    sampler = StepSampler(len(splits["train"]), how.batch, session.ranks, how.seed)
    loader = crop_loader(splits["train"], sampler, config)
    steps = len(sampler) * how.epochs
    weights = class_weights(splits["train"], session, len(labels), how.class_balance)

    torch.manual_seed(how.seed)
    net = build_net(config.net.model, len(labels), config.net.width)
    info = ModelInfo(config.net.model, config.net.width, labels, count_parameters(net))
    if config.net.pretrained is not None:
        for line in load_pretrained(net, config.net.pretrained).lines():
            session.log(line)
    wanted = session.runtime.precision
    ipex = load_ipex(session.runtime.ipex, session.cpu, wants_bf16(wanted, session.cpu))
    session.decide("ipex", ipex.reason)
    precision = choose_precision(wanted, session.cpu, ipex)
    session.decide("precision", f"{precision.name} ({precision.reason})")
    if precision.warning:
        session.warn(precision.warning)
    net = net.to(memory_format=session.memory_format)  # type: ignore[call-overload]
    net, optimizer = precision.prepare(ipex, net, build_optimizer(net, how))
    trained = distribute(net, session)
    session.log(
        f"{info.model}: {info.parameters / 1e6:.2f} M parameters; {len(splits['train'])} images, "
        f"{len(sampler)} steps of {sampler.batch} an epoch, {how.epochs} epochs"
    )

    metrics_jsonl, best_row = session.step.metrics_jsonl, None
    if session.is_main:
        metrics_jsonl.unlink(missing_ok=True)
    start = time.monotonic()
    for epoch in range(how.epochs):
        epoch_start = time.monotonic()
        sampler.epoch = epoch
        net.train()
        train_loss = train_epoch(
            trained, optimizer, loader, session, precision, weights, how, epoch * len(sampler), steps
        )
        seconds = time.monotonic() - epoch_start
        average_batch_norm(net, session)
        score = validate(net, splits["val"], session, precision, how.val_size, len(labels))
        row = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * len(sampler),
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": round(train_loss, 6),
            "val_loss": round(score.loss, 6),
            **score.confusion.scores(labels.classes),
            "images_per_s": round(len(sampler) * sampler.batch / seconds, 3),
            "time_per_image_ms": round(1000 * seconds / (len(sampler) * sampler.batch), 3),
            "elapsed_s": round(time.monotonic() - start, 3),
        }
        session.log(
            f"epoch {row['epoch']}/{how.epochs}: loss {row['train_loss']:.3f}, validation loss {row['val_loss']:.3f}, "
            f"mIoU {row['miou_pct']:.1f} %, pixel accuracy {row['pixel_accuracy_pct']:.1f} %, "
            f"{row['images_per_s']:.1f} images/s"
        )
        is_best = best_row is None or row["miou_pct"] > best_row["miou_pct"]
        best_row = row if is_best else best_row
        if session.is_main:
            append_json_line(metrics_jsonl, row)
            state = net.state_dict()
            if is_best:
                save_model(RunFolder(config.run).model_pt, info, state)
            save_checkpoint(session.step.checkpoints, state, optimizer.state_dict(), row, is_best)
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
    }


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
    )


def build_optimizer(net: nn.Module, how: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with momentum (the HRNet recipe) or AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101)."""
    if how.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), how.lr, weight_decay=how.weight_decay)
    return torch.optim.SGD(net.parameters(), how.lr, momentum=how.momentum, weight_decay=how.weight_decay)


def distribute(net: nn.Module, session: Session) -> nn.Module:
    """The net as DDP trains it; itself where there is one rank."""
    if session.ranks.world == 1:
        return net
    return DistributedDataParallel(
        net,
        process_group=session.collectives.gradient_group,
        broadcast_buffers=False,  # batch normalization's averages are united once an epoch, over all ranks
        gradient_as_bucket_view=True,
    )


def train_epoch(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    session: Session,
    precision: Precision,
    weights: Tensor,
    how: TrainingConfig,
    first_step: int,
    steps: int,
) -> float:
    """One pass over this rank's share; returns the (weighted) mean cross-entropy of a pixel over all ranks (nats)."""
    sums = torch.zeros(2, dtype=torch.float64)
    with Progress(f"epoch {first_step // len(loader) + 1}/{how.epochs}", len(loader), session.is_main) as progress:
        for step, (images, labels) in enumerate(loader, first_step):
            for group in optimizer.param_groups:
                group["lr"] = poly_lr(how.lr, step, steps, how.poly_power)
            loss_sum, weight = loss_of(net, images, labels, weights, precision)
            everywhere = session.collectives.sum(torch.tensor(weight, dtype=torch.float64)).clamp(min=1e-6)
            # DDP takes the mean over ranks: times their number over all weight, it is the mean over all pixels,
            # however unevenly the step's samples and ignored pixels are spread.
            optimizer.zero_grad(set_to_none=True)
            (loss_sum * (session.ranks.world / float(everywhere))).backward()
            optimizer.step()
            own = float(loss_sum.detach())
            sums += torch.tensor([own, weight], dtype=torch.float64)
            progress.step(f"loss {own / max(weight, 1e-6):.3f}")
    loss, total_weight = session.collectives.sum(sums).tolist()
    if not math.isfinite(loss):  # the same sum on every rank: all stop here together
        raise FloatingPointError(
            f"the loss of this epoch is {loss}; --lr {how.lr} may be too large, give a smaller one"
        )
    return float(loss / max(total_weight, 1e-6))


def loss_of(
    net: nn.Module, images: Tensor, labels: Tensor, weights: Tensor, precision: Precision
) -> tuple[Tensor, float]:
    """Cross-entropy summed over the pixels that count, each by the weight of its class, and the sum of the weights.

    Shapes: images uint8 ``[n, h, w, 3]``, labels uint8 ``[n, h, w]``, weights float32 ``[classes]``.
    """
    inputs = to_input(images)
    with precision.autocast():
        logits = predict_logits(net, inputs, (labels.shape[1], labels.shape[2]))
    loss = F.cross_entropy(logits.float(), labels.long(), weights, ignore_index=IGNORE, reduction="sum")
    counted = labels[labels != IGNORE].long()
    return loss, float(weights[counted].sum(dtype=torch.float64))


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


def poly_lr(first: float, step: int, steps: int, power: float) -> float:
    """Learning rate of ``step`` (from 0) of ``steps``: first · (1 - step / steps) ** power (DeepLab, HRNet)."""
    return float(first * (1 - step / steps) ** power)


def average_batch_norm(net: nn.Module, session: Session) -> None:
    """Replace batch normalization's running averages by their mean over all ranks; each saw other samples."""
    if session.ranks.world == 1:
        return
    buffers = [b for name, b in net.named_buffers() if name.endswith(("running_mean", "running_var"))]
    flat = session.collectives.sum(torch.cat([b.flatten().double() for b in buffers])) / session.ranks.world
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers])):
        buffer.copy_(mean.reshape(buffer.shape))


def validate(
    net: nn.Module, images: WholeImages, session: Session, precision: Precision, val_size: str, classes: int
) -> Score:
    """Score the net on the validation split, each rank taking its share."""
    net.eval()
    size = None if val_size == "label" else parse_size(val_size)
    own = shard(len(images), session.ranks)
    score = score_images(net, images, own, size, classes, precision.autocast())
    score.sum_over(session.collectives)
    return score
