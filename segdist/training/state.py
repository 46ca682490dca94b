"""All that a training needs to go on as if it had never stopped, as plain data and tensors."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from segdist.config import ConfigError, TrainConfig
from segdist.data.labels import LabelSet
from segdist.data.layout import Sample
from segdist.models.aux_head import AuxHeadNet, without_aux_head
from segdist.run.start_mode import MAY_CHANGE
from segdist.runtime.collectives import Collectives
from segdist.training.ddp import running_stats
from segdist.training.ema import ExponentialMovingAverage

_NAMES_IN_FILE = {"skipped_steps": "left_out"}
"""Fields of the progress that have another name in a checkpoint."""


@dataclass
class TrainProgress:
    """How far a training is: ``batch`` steps of epoch ``epoch`` (from 0) are done.

    ``loss_sum`` over ``weight_sum`` is the running epoch's loss so far, ``losses`` has its steps' (nats; None for one
    that was skipped; ``skipped_steps`` counts those in a row), ``seconds`` is the time they took. ``rows`` are those of
    ``metrics.jsonl``; ``elapsed`` is the time of all starts together in seconds.
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

    @property
    def loss(self) -> float:
        """The mean loss of a pixel over the running epoch so far (nats)."""
        return self.loss_sum / max(self.weight_sum, 1e-6)

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
        """The epoch is done; returns whether it was scored, and is the best so far."""
        validated = "miou_pct" in row
        is_best = validated and (self.best_row is None or row["miou_pct"] > self.best_row["miou_pct"])
        self.rows.append(row)
        self.best_row = row if is_best else self.best_row
        self.epoch, self.batch = self.epoch + 1, 0
        self.loss_sum = self.weight_sum = self.seconds = 0.0
        self.losses = []
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """A copy as plain data."""
        values = copy.deepcopy(dataclasses.asdict(self))
        return {_NAMES_IN_FILE.get(name, name): value for name, value in values.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take a copy of what :meth:`state_dict` gave."""
        for one in dataclasses.fields(self):
            setattr(self, one.name, copy.deepcopy(saved[_NAMES_IN_FILE.get(one.name, one.name)]))


@dataclass
class TrainState:
    """All that changes as a training goes on; it is saved, and resumed, as one thing.

    Args:
        net: what is trained, its auxiliary head with it where it has one; without DDP around it.
        optimizer: of the net's weights.
        ema: moving average of the model's weights, or None.
        collectives: of this rank; saving and loading are for all ranks together.
        steps_per_epoch: steps of the optimizer in a whole epoch.
        progress: how far it is.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    ema: ExponentialMovingAverage | None
    collectives: Collectives
    steps_per_epoch: int
    progress: TrainProgress = field(default_factory=TrainProgress)
    _started: float = field(default_factory=time.monotonic, init=False, repr=False)

    @property
    def step(self) -> int:
        """Steps done in all; so also the number, from 0, of the step that is running or comes next."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.batch

    @property
    def model(self) -> nn.Module:
        """The net without its auxiliary head: what is validated, and what ``model.pt`` holds."""
        return without_aux_head(self.net)

    def fp32_weights(self) -> Mapping[str, Tensor]:
        """The model's weights as its optimizer has them, by name: the living ones where those are fp32.

        In bf16 IPEX leaves the net the upper half of each, and gives the whole in the net's state dict.
        """
        own = dict(self.model.named_parameters())
        if all(weight.dtype == torch.float32 for weight in own.values()):
            return own
        return self._of_model(self.net.state_dict())

    def start_clock(self) -> None:
        """From now on the time counts as the training's."""
        self._started = time.monotonic() - self.progress.elapsed

    def read_clock(self) -> float:
        """Note, and return, the seconds of all starts together."""
        self.progress.elapsed = time.monotonic() - self._started
        return self.progress.elapsed

    def state_dict(self) -> dict[str, Any]:
        """The state between two steps; every rank calls it, and has the random state and the statistics of all.

        Its tensors are the living ones: copy them before the next step.

        Returns:
            ``position`` (the progress), ``weights``, ``optimizer``, ``average`` (the EMA, empty without one), and
            ``ranks``: of each rank ``rng`` and ``buffers``, batch normalization's running statistics.
        """
        own = {"rng": torch.get_rng_state(), "buffers": running_stats(self.net)}
        return {
            "position": self.progress.state_dict(),
            "weights": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.ema.state_dict() if self.ema is not None else {},
            "ranks": self.collectives.all_gather(own),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` gave, of this training or of one that was built alike.

        On another number of ranks than it was saved on, batch normalization's running statistics, of which each rank
        has its own within an epoch, are the mean of those saved, and the random state stays as it is.
        """
        self.progress.load_state_dict(saved["position"])
        self.net.load_state_dict(saved["weights"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(saved["average"])
        of_ranks, ranks = saved["ranks"], self.collectives.ranks
        if len(of_ranks) == ranks.world:
            stats = of_ranks[ranks.rank]["buffers"]
            torch.set_rng_state(of_ranks[ranks.rank]["rng"])
        else:
            names = of_ranks[0]["buffers"]
            stats = {name: torch.stack([one["buffers"][name].double() for one in of_ranks]).mean(0) for name in names}
        for name, buffer in running_stats(self.net).items():
            buffer.copy_(stats[name])

    def model_weights(self, saved: Mapping[str, Any]) -> dict[str, Tensor]:
        """The model's weights in a (copied) state dict: without an auxiliary head's, and the EMA where there is one."""
        return {**self._of_model(saved["weights"]), **saved["average"]}

    def _of_model(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of the net's state dict what is the model's, by the model's own names."""
        prefix = "net." if isinstance(self.net, AuxHeadNet) else ""
        return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def fingerprint(config: TrainConfig, labels: LabelSet, samples: Sequence[Sample]) -> dict[str, str]:
    """What makes a run the run it is, by the option's name; a checkpoint goes on under the same only."""
    fields = {**dataclasses.asdict(config.net), **dataclasses.asdict(config.training)}
    values = {name: str(value) for name, value in fields.items() if name not in MAY_CHANGE}
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
            f"{path}: is of another training: {differences}; give the same, another --run (with --init weights FILE it "
            "begins with a model's weights), or --overwrite to start afresh"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:8]
