"""One step of the optimizer over all ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdist.config import TrainingConfig
from segdist.data.labels import IGNORE
from segdist.models.inference import predict_logits, to_input
from segdist.runtime.precision import Precision
from segdist.session import MainFailed, Session


@dataclass(frozen=True)
class StepEnd:
    """What all ranks know after a step: its summed loss and weight over all of them, and what comes next.

    ``stop``: a signal has come to some rank; ``save``: a checkpoint is due.
    """

    loss_sum: float
    weight: float
    stop: bool
    save: bool

    @property
    def loss(self) -> float:
        """The mean cross-entropy of a pixel (nats)."""
        return self.loss_sum / max(self.weight, 1e-6)


class Stepper:
    """Does the steps of a training.

    Args:
        net: as it is trained (DDP around it where there are several ranks).
        optimizer: of its weights.
        session: this rank's.
        precision: of the forward pass.
        class_weights: float32 ``[classes]``.
        how: the options.
        steps: of the whole training.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        session: Session,
        precision: Precision,
        class_weights: Tensor,
        how: TrainingConfig,
        steps: int,
    ) -> None:
        self.net = net
        self.optimizer = optimizer
        self.session = session
        self.precision = precision
        self.class_weights = class_weights
        self.how = how
        self.steps = steps

    def lr(self, step: int) -> float:
        """Learning rate of ``step`` (from 0)."""
        return poly_lr(self.how.lr, step, self.steps, self.how.poly_power)

    def __call__(self, images: Tensor, labels: Tensor, step: int, save_is_due: bool) -> StepEnd:
        """Do step ``step`` (from 0) with this rank's samples.

        Shapes: images uint8 ``[n, h, w, 3]``, labels uint8 ``[n, h, w]``.

        Raises:
            FloatingPointError: on all ranks, for a loss that is not finite.
            Fenced, MainFailed: on rank 0 and the others, where the step's folder was lost.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
        loss_sum, weight = loss_of(self.net, images, labels, self.class_weights, self.precision)
        end = self._agree(step, float(loss_sum.detach()), weight, save_is_due)
        # DDP takes the mean over ranks: times their number over all weight, it is the mean over all pixels,
        # however unevenly the step's samples and ignored pixels are spread.
        self.optimizer.zero_grad(set_to_none=True)
        (loss_sum * (self.session.ranks.world / max(end.weight, 1e-6))).backward()
        self.optimizer.step()
        return end

    def _agree(self, step: int, loss_sum: float, weight: float, save_is_due: bool) -> StepEnd:
        """The one exchange of a step besides the gradients: sums of the loss, and who wants what."""
        session = self.session
        lost = session.fence is not None and session.fence.lost.is_set()
        mine = [loss_sum, weight, float(bool(session.stop)), float(save_is_due and session.is_main), float(lost)]
        total, everywhere, stop, save, gone = session.collectives.sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        if gone:
            session.check_fence()
            raise MainFailed("rank 0 lost the step's folder to another job; its log says to whom")
        if not math.isfinite(total):  # the same sum on every rank: all stop here together
            raise FloatingPointError(
                f"the loss of step {step + 1} is {total}; --lr {self.how.lr} may be too large, give a smaller one"
            )
        return StepEnd(total, everywhere, stop > 0, save > 0)


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


def poly_lr(first: float, step: int, steps: int, power: float) -> float:
    """Learning rate of ``step`` (from 0) of ``steps``: first · (1 - step / steps) ** power (DeepLab, HRNet)."""
    return float(first * (1 - step / steps) ** power)
