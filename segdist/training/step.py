"""One step of the optimizer over all ranks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from segdist.config import TrainingConfig
from segdist.models.aux_head import main_and_aux_logits
from segdist.models.forward import predict_logits, to_input
from segdist.runtime.precision import Precision
from segdist.runtime.rank_context import Rank0Failed, RankContext
from segdist.training.loss import PixelCrossEntropy
from segdist.training.optimizer import learning_rate
from segdist.training.state import TrainState


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
    """What may go wrong on rank 0 beside the steps: ``failed`` says that something has, ``check`` raises it."""

    @property
    def failed(self) -> bool: ...

    def check(self) -> None: ...


class TrainStep:
    """Does the steps of a training.

    Args:
        state: of the training; each call does its next step, and changes net, optimizer and EMA, not the progress.
        net: the state's net as it runs forward: DDP around it where there are several ranks.
        criterion: of logits and labels.
        context: this rank's.
        precision: of the forward pass.
        cfg: the options.
    """

    def __init__(
        self,
        state: TrainState,
        net: nn.Module,
        criterion: PixelCrossEntropy,
        context: RankContext,
        precision: Precision,
        cfg: TrainingConfig,
    ) -> None:
        self.state = state
        self.net = net
        self.criterion = criterion
        self.context = context
        self.precision = precision
        self.cfg = cfg
        self._weights = [parameter for parameter in state.net.parameters() if parameter.requires_grad]

    def lr(self, step: int) -> float:
        """Learning rate of ``step`` (from 0)."""
        return learning_rate(self.cfg, step, self.cfg.epochs * self.state.steps_per_epoch)

    def __call__(self, images: Tensor, labels: Tensor, save_is_due: bool, health: HealthCheck) -> StepResult:
        """Do the next step with this rank's samples.

        Shapes: images uint8 ``[n, h, w, 3]``, labels uint8 ``[n, h, w]``, n at least ``cfg.accumulate``.

        Raises:
            Rank0Failed: where something is wrong on rank 0; on rank 0 the error itself.
        """
        state, step, world = self.state, self.state.step, self.context.ranks.world
        for group in state.optimizer.param_groups:
            group["lr"] = self.lr(step)
        buffers = [buffer.clone() for buffer in state.net.buffers()] if self.cfg.on_nan == "skip" else []
        state.optimizer.zero_grad(set_to_none=True)
        parts = list(zip(images.tensor_split(self.cfg.accumulate), labels.tensor_split(self.cfg.accumulate)))
        # Keeps the gradients' size within any arithmetic; taken out again below.
        scale = 1 / (self.cfg.batch * labels[0].numel())
        loss_sum = weight = 0.0
        for part_images, part_labels in parts[:-1]:
            with self._no_sync():
                loss, part_weight = self._loss(part_images, part_labels)
                (loss * scale).backward()
            loss_sum, weight = loss_sum + float(loss.detach()), weight + part_weight
        loss, part_weight = self._loss(*parts[-1])
        loss_sum, weight = loss_sum + float(loss.detach()), weight + part_weight
        # The sums travel while the gradients are computed: a slow rank is waited for once a step, at the gradients.
        self.context.heartbeat(step, "exchanges the loss")
        wait_for_stats = self._begin_stats(loss_sum, weight, save_is_due, health)
        self.context.heartbeat(step, "backward pass")
        (loss * scale).backward()
        result = self._end_stats(wait_for_stats(), health)
        # DDP takes the mean over ranks: times their number over all weight, it is the mean over all pixels, however
        # unevenly the step's samples and ignored pixels are distributed.
        factor = world / (scale * max(result.weight, 1e-6))
        if not result.bad_ranks and not self._scale_gradients(factor):
            result = replace(result, bad_ranks=tuple(range(world)))
        if result.bad_ranks:
            state.optimizer.zero_grad(set_to_none=True)
            for buffer, before in zip(state.net.buffers(), buffers):
                buffer.copy_(before)
            return result
        state.optimizer.step()
        if state.ema is not None:
            state.ema.update(state.fp32_weights(), step)
        return result

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """The summed loss of some samples, the auxiliary head's part in it, and the weight of their pixels.

        Hard pixels are chosen by the main head, and both heads learn from the same: their weight divides both sums.
        """
        inputs, size = to_input(images), (labels.shape[1], labels.shape[2])
        aux_logits: list[Tensor] = []

        def main_head(padded: Tensor) -> Tensor:
            logits, auxiliary = main_and_aux_logits(self.net(padded))
            aux_logits.extend([] if auxiliary is None else [auxiliary])
            return logits

        with self.precision.autocast():
            logits = predict_logits(main_head, inputs, size).float()
        hard_labels = self.criterion.select_hard_pixels(logits, labels)
        loss, weight = self.criterion.cross_entropy(logits, hard_labels)
        for auxiliary in aux_logits:
            logits = predict_logits(lambda _: auxiliary, inputs, size).float()  # noqa: B023, called at once
            loss = loss + self.cfg.aux_weight * self.criterion.cross_entropy(logits, hard_labels)[0]
        return loss, weight

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

    def _begin_stats(
        self, loss_sum: float, weight: float, save_is_due: bool, health: HealthCheck
    ) -> Callable[[], Tensor]:
        """Begin the one exchange of a step besides the gradients: sums of the loss, and which ranks ask for what."""
        context = self.context
        finite = math.isfinite(loss_sum)
        own = [loss_sum if finite else 0.0, weight]
        own += [float(flag) for flag in (bool(context.stop), save_is_due, context.is_rank0 and health.failed)]
        own += [float(not finite and rank == context.ranks.rank) for rank in range(context.ranks.world)]
        return context.collectives.begin_all_reduce(torch.tensor(own, dtype=torch.float64))

    def _end_stats(self, sums: Tensor, health: HealthCheck) -> StepResult:
        """What all ranks know by it; raises Rank0Failed, or on rank 0 the error itself."""
        total, total_weight, stop, save, failed, *bad = sums.tolist()
        if failed:
            health.check()
            raise Rank0Failed("rank 0 cannot go on; its log says why")
        return StepResult(total, total_weight, stop > 0, save > 0, tuple(rank for rank, flag in enumerate(bad) if flag))
