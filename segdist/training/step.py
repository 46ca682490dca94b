"""One step of the optimizer over all ranks."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from segdist.config import TrainingConfig
from segdist.models.aux_head import main_and_aux_logits, without_aux_head
from segdist.models.forward import predict_logits, to_input
from segdist.runtime.precision import Precision
from segdist.runtime.rank_context import Rank0Failed, RankContext
from segdist.training.ema import ExponentialMovingAverage
from segdist.training.loss import PixelLoss
from segdist.training.optimizer import learning_rate


@dataclass(frozen=True)
class StepResult:
    """What all ranks know after a step: its summed loss and weight over all of them, and what comes next.

    ``stop``: a signal has come to some rank; ``save``: a checkpoint is due; ``bad_ranks``: those whose loss was not
    finite, all of them where the gradient was not. The weights are then as before the step.
    """

    loss_sum: float
    weight: float
    stop: bool = False
    save: bool = False
    bad_ranks: tuple[int, ...] = ()

    @property
    def loss(self) -> float:
        """The mean loss of a pixel (nats)."""
        return self.loss_sum / max(self.weight, 1e-6)


class HealthCheck(Protocol):
    """What rank 0 may run into beside the steps: ``check`` raises it, ``found`` says that there is some."""

    @property
    def failed(self) -> bool: ...

    def check(self) -> None: ...


class TrainStep:
    """Does the steps of a training.

    Args:
        net: as it is trained: DDP around it where there are several ranks.
        bare: the same without DDP.
        optimizer: of its weights.
        average: of its weights, or None.
        session: this rank's.
        precision: of the forward pass.
        loss: of logits and labels.
        how: the options.
        steps: of the whole training.
    """

    def __init__(
        self,
        net: nn.Module,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: ExponentialMovingAverage | None,
        context: RankContext,
        precision: Precision,
        loss: PixelLoss,
        cfg: TrainingConfig,
        steps: int,
    ) -> None:
        self.net = net
        self.module = module
        self.optimizer = optimizer
        self.ema = ema
        self.context = context
        self.precision = precision
        self.loss = loss
        self.cfg = cfg
        self.steps = steps
        self._weights = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def lr(self, step: int) -> float:
        """Learning rate of ``step`` (from 0)."""
        return learning_rate(self.cfg, step, self.steps)

    def __call__(
        self, images: Tensor, labels: Tensor, step: int, save_is_due: bool, trouble: HealthCheck
    ) -> StepResult:
        """Do step ``step`` (from 0) with this rank's samples.

        Shapes: images uint8 ``[n, h, w, 3]``, labels uint8 ``[n, h, w]``, n at least ``how.accumulate``.

        Raises:
            Rank0Failed: where rank 0 is in trouble; on rank 0 that trouble itself.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
        statistics = [buffer.clone() for buffer in self.module.buffers()] if self.cfg.on_nan == "skip" else []
        self.optimizer.zero_grad(set_to_none=True)
        parts = list(zip(images.tensor_split(self.cfg.accumulate), labels.tensor_split(self.cfg.accumulate)))
        scale = 1 / (
            self.cfg.batch * labels[0].numel()
        )  # keeps the gradients' size within any arithmetic; taken out again below
        loss_sum = weight = 0.0
        for part_images, part_labels in parts[:-1]:
            with self._no_sync():
                cost, part_weight = self._loss(part_images, part_labels)
                (cost * scale).backward()
            loss_sum, weight = loss_sum + float(cost.detach()), weight + part_weight
        cost, part_weight = self._loss(*parts[-1])
        loss_sum, weight = loss_sum + float(cost.detach()), weight + part_weight
        self.context.heartbeat(step, "exchanges the loss")
        end = self._reduce_stats(loss_sum, weight, save_is_due, trouble)
        if not end.bad_ranks:
            self.context.heartbeat(step, "backward pass")
            (cost * scale).backward()
            # DDP takes the mean over ranks: times their number over all weight, it is the mean over all pixels,
            # however unevenly the step's samples and ignored pixels are spread.
            if not self._scale_gradients(self.context.ranks.world / (scale * max(end.weight, 1e-6))):
                end = StepResult(end.loss_sum, end.weight, end.stop, end.save, tuple(range(self.context.ranks.world)))
        if end.bad_ranks:
            self.optimizer.zero_grad(set_to_none=True)
            for buffer, before in zip(self.module.buffers(), statistics):
                buffer.copy_(before)
            return end
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(without_aux_head(self.module), step)
        return end

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """The summed loss of some samples, the auxiliary head's part in it, and the weight of their pixels.

        Hard pixels are chosen by the main head, and both heads learn from the same: their weight divides both sums.
        """
        inputs, size = to_input(images), (labels.shape[1], labels.shape[2])
        second: list[Tensor] = []

        def main(padded: Tensor) -> Tensor:
            logits, auxiliary = main_and_aux_logits(self.net(padded))
            second.extend([] if auxiliary is None else [auxiliary])
            return logits

        with self.precision.autocast():
            logits = predict_logits(main, inputs, size).float()
        counted = self.loss.select_hard_pixels(logits, labels)
        cost, weight = self.loss.forward(logits, counted)
        for auxiliary in second:
            logits = predict_logits(lambda _: auxiliary, inputs, size).float()  # noqa: B023, called at once
            cost = cost + self.cfg.aux_weight * self.loss.forward(logits, counted)[0]
        return cost, weight

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        """The context of a backward pass whose gradients stay with this rank for now."""
        no_sync: contextlib.AbstractContextManager[None] = getattr(self.net, "no_sync", contextlib.nullcontext)()
        return no_sync

    @torch.no_grad()
    def _scale_gradients(self, factor: float) -> bool:
        """Multiply all gradients, and shorten them to ``clip_norm``; False where they are not finite.

        Clipping as in Pascanu et al. 2013 (https://arxiv.org/abs/1211.5063, algorithm 1), over all weights together.
        Gradients are the same on all ranks, and so is the answer.
        """
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = factor * float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float()))
        if not math.isfinite(norm):
            return False
        if 0 < self.cfg.clip_norm < norm:
            factor *= self.cfg.clip_norm / norm
        torch._foreach_mul_(gradients, factor)
        return True

    def _reduce_stats(self, loss_sum: float, weight: float, save_is_due: bool, trouble: HealthCheck) -> StepResult:
        """The one exchange of a step besides the gradients: sums of the loss, and who wants what."""
        context = self.context
        finite = math.isfinite(loss_sum)
        mine = [loss_sum if finite else 0.0, weight]
        mine += [float(flag) for flag in (bool(context.stop), save_is_due, context.is_rank0 and trouble.failed)]
        mine += [float(not finite and rank == context.ranks.rank) for rank in range(context.ranks.world)]
        total, everywhere, stop, save, failed, *bad = context.collectives.sum(
            torch.tensor(mine, dtype=torch.float64)
        ).tolist()
        if failed:
            trouble.check()
            raise Rank0Failed("rank 0 cannot go on; its log says why")
        return StepResult(total, everywhere, stop > 0, save > 0, tuple(rank for rank, flag in enumerate(bad) if flag))
