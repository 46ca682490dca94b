"""All that a training needs to go on as if it had never stopped, as plain data and tensors."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from segdist.config import ConfigError, TrainConfig
from segdist.data.labels import LabelSet
from segdist.data.layout import Sample
from segdist.runtime.collectives import Collectives
from segdist.training.ema import ExponentialMovingAverage

_NOT_OF_THE_RUN = ("checkpoint_minutes", "keep", "resume", "on_nan")
"""Training options that may change from one start to the next."""


@dataclass
class TrainProgress:
    """Where a training stands: ``batch`` steps of epoch ``epoch`` (from 0) are done.

    ``loss_sum`` over ``weight_sum`` is the running epoch's loss so far, ``losses`` has its steps' (nats; None for one
    that was left out; ``left_out`` counts those in a row), ``seconds`` is the time they took. ``rows`` are those of
    ``metrics.jsonl``; ``elapsed`` is the time of all starts together.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    losses: list[float | None] = field(default_factory=list)
    skipped_steps: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_row: dict[str, Any] | None = None

    def count(self, loss_sum: float, weight: float) -> None:
        """One more step is done."""
        self.batch += 1
        self.loss_sum += loss_sum
        self.weight_sum += weight
        self.losses.append(loss_sum / max(weight, 1e-6))
        self.skipped_steps = 0

    def skip_step(self) -> int:
        """One more step is past, but changed nothing; returns how many in a row that makes."""
        self.batch += 1
        self.losses.append(None)
        self.skipped_steps += 1
        return self.skipped_steps

    def end_epoch(self, row: dict[str, Any]) -> bool:
        """The epoch is scored; returns whether it is the best so far."""
        is_best = self.best_row is None or row["miou_pct"] > self.best_row["miou_pct"]
        self.rows.append(row)
        self.best_row = row if is_best else self.best_row
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum = self.weight_sum = self.seconds = 0.0
        self.losses = []
        return is_best


def fingerprint(config: TrainConfig, labels: LabelSet, samples: Sequence[Sample]) -> dict[str, str]:
    """What makes a run the run it is, by the option's name; a checkpoint goes on under the same only."""
    fields = {**dataclasses.asdict(config.net), **dataclasses.asdict(config.training)}
    values = {name: str(value) for name, value in fields.items() if name not in _NOT_OF_THE_RUN}
    names = "\n".join(sample.image.name for sample in samples)
    values["labels"] = f"{labels.name} ({_digest(repr((labels.classes, labels.members)))})"
    values["data"] = f"{len(samples)} training images ({_digest(names)})"
    return {name.replace("_", "-"): value for name, value in values.items()}


def require_same_run(path: object, saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on from a checkpoint of another run.

    Raises:
        ConfigError: naming every option that differs.
    """
    names = [name for name in {**now, **saved} if saved.get(name) != now.get(name)]
    if names:
        differences = ", ".join(f"--{n} was {saved.get(n, 'not known')} and is {now.get(n, 'gone')}" for n in names)
        raise ConfigError(
            f"{path}: is of another run: {differences}; give the same, another --run, or --resume never to start afresh"
        )


def capture(
    position: TrainProgress,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: ExponentialMovingAverage | None,
    collectives: Collectives,
) -> dict[str, Any]:
    """The state of this training between two steps; every rank calls it, and rank 0's is whole.

    Its tensors are the living ones: copy them before the next step.
    """
    own = {"rng": torch.get_rng_state(), "buffers": _rank_buffers(net)}
    parts = collectives.gather(own)
    return {
        "position": copy.deepcopy(dataclasses.asdict(position)),
        "weights": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": ema.weights if ema is not None else {},
        "ranks": parts,
    }


def restore(
    state: Mapping[str, Any],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: ExponentialMovingAverage | None,
    collectives: Collectives,
) -> TrainProgress:
    """Put a captured state into a fresh net and optimizer; returns where it stood.

    On another number of ranks than it was saved on, batch normalization's running averages, of which each rank has its
    own within an epoch, are the mean of those saved.
    """
    net.load_state_dict(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    if ema is not None:
        ema.load(state["average"])
    parts = state["ranks"]
    if len(parts) == collectives.ranks.world:
        own = parts[collectives.ranks.rank]
        buffers, rng = own["buffers"], own["rng"]
        torch.set_rng_state(rng)
    else:
        names = parts[0]["buffers"]
        buffers = {name: torch.stack([part["buffers"][name].double() for part in parts]).mean(0) for name in names}
    for name, buffer in net.named_buffers():
        if name in buffers:
            buffer.copy_(buffers[name])
    return TrainProgress(**state["position"])


def _rank_buffers(net: nn.Module) -> dict[str, Tensor]:
    """What each rank has of its own: running averages."""
    return {name: b for name, b in net.named_buffers() if name.endswith(("running_mean", "running_var"))}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
