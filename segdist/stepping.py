"""One step of the optimizer over all ranks."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from segdist.config import TrainingConfig
from segdist.losses import PixelLoss
from segdist.models.auxiliary import both_logits, inner_net
from segdist.models.inference import predict_logits, to_input
from segdist.optimizers import WeightAverage, learning_rate
from segdist.runtime.precision import Precision
from segdist.session import MainFailed, Session


@dataclass(frozen=True)
class StepEnd:
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


class Trouble(Protocol):
    """What rank 0 may run into beside the steps: ``check`` raises it, ``found`` says that there is some."""

    @property
    def found(self) -> bool: ...

    def check(self) -> None: ...


class Stepper:
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
        bare: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
        session: Session,
        precision: Precision,
        loss: PixelLoss,
        how: TrainingConfig,
        steps: int,
    ) -> None:
        self.net = net
        self.bare = bare
        self.optimizer = optimizer
        self.average = average
        self.session = session
        self.precision = precision
        self.loss = loss
        self.how = how
        self.steps = steps
        self._weights = [parameter for parameter in bare.parameters() if parameter.requires_grad]

    def lr(self, step: int) -> float:
        """Learning rate of ``step`` (from 0)."""
        return learning_rate(self.how, step, self.steps)

    def __call__(self, images: Tensor, labels: Tensor, step: int, save_is_due: bool, trouble: Trouble) -> StepEnd:
        """Do step ``step`` (from 0) with this rank's samples.

        Shapes: images uint8 ``[n, h, w, 3]``, labels uint8 ``[n, h, w]``, n at least ``how.accumulate``.

        Raises:
            MainFailed: where rank 0 is in trouble; on rank 0 that trouble itself.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
        statistics = [buffer.clone() for buffer in self.bare.buffers()] if self.how.on_nan == "skip" else []
        self.optimizer.zero_grad(set_to_none=True)
        parts = list(zip(images.tensor_split(self.how.accumulate), labels.tensor_split(self.how.accumulate)))
        scale = 1 / (
            self.how.batch * labels[0].numel()
        )  # keeps the gradients' size within any arithmetic; taken out again below
        loss_sum = weight = 0.0
        for part_images, part_labels in parts[:-1]:
            with self._alone():
                cost, part_weight = self._cost(part_images, part_labels)
                (cost * scale).backward()
            loss_sum, weight = loss_sum + float(cost.detach()), weight + part_weight
        cost, part_weight = self._cost(*parts[-1])
        loss_sum, weight = loss_sum + float(cost.detach()), weight + part_weight
        self.session.at(step, "exchanges the loss")
        end = self._agree(loss_sum, weight, save_is_due, trouble)
        if not end.bad_ranks:
            self.session.at(step, "backward pass")
            (cost * scale).backward()
            # DDP takes the mean over ranks: times their number over all weight, it is the mean over all pixels,
            # however unevenly the step's samples and ignored pixels are spread.
            if not self._scale_gradients(self.session.ranks.world / (scale * max(end.weight, 1e-6))):
                end = StepEnd(end.loss_sum, end.weight, end.stop, end.save, tuple(range(self.session.ranks.world)))
        if end.bad_ranks:
            self.optimizer.zero_grad(set_to_none=True)
            for buffer, before in zip(self.bare.buffers(), statistics):
                buffer.copy_(before)
            return end
        self.optimizer.step()
        if self.average is not None:
            self.average.update(inner_net(self.bare), step)
        return end

    def _cost(self, images: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """The summed loss of some samples, the auxiliary head's part in it, and the weight of their pixels.

        Hard pixels are chosen by the main head, and both heads learn from the same: their weight divides both sums.
        """
        inputs, size = to_input(images), (labels.shape[1], labels.shape[2])
        second: list[Tensor] = []

        def main(padded: Tensor) -> Tensor:
            logits, auxiliary = both_logits(self.net(padded))
            second.extend([] if auxiliary is None else [auxiliary])
            return logits

        with self.precision.autocast():
            logits = predict_logits(main, inputs, size).float()
        counted = self.loss.counted(logits, labels)
        cost, weight = self.loss.over(logits, counted)
        for auxiliary in second:
            logits = predict_logits(lambda _: auxiliary, inputs, size).float()  # noqa: B023, called at once
            cost = cost + self.how.aux_weight * self.loss.over(logits, counted)[0]
        return cost, weight

    def _alone(self) -> contextlib.AbstractContextManager[None]:
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
        if 0 < self.how.clip_norm < norm:
            factor *= self.how.clip_norm / norm
        torch._foreach_mul_(gradients, factor)
        return True

    def _agree(self, loss_sum: float, weight: float, save_is_due: bool, trouble: Trouble) -> StepEnd:
        """The one exchange of a step besides the gradients: sums of the loss, and who wants what."""
        session = self.session
        finite = math.isfinite(loss_sum)
        mine = [loss_sum if finite else 0.0, weight]
        mine += [float(flag) for flag in (bool(session.stop), save_is_due, session.is_main and trouble.found)]
        mine += [float(not finite and rank == session.ranks.rank) for rank in range(session.ranks.world)]
        total, everywhere, stop, save, failed, *bad = session.collectives.sum(
            torch.tensor(mine, dtype=torch.float64)
        ).tolist()
        if failed:
            trouble.check()
            raise MainFailed("rank 0 cannot go on; its log says why")
        return StepEnd(total, everywhere, stop > 0, save > 0, tuple(rank for rank, flag in enumerate(bad) if flag))
