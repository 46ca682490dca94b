"""What a prediction costs: cross-entropy of pixels, with class weights, label smoothing and hard example mining."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segdist.data.labels import IGNORE


@dataclass(frozen=True)
class PixelCrossEntropy:
    """Cross-entropy summed over the pixels that count, each by the weight of its class, and the sum of those weights.

    Sums, because the mean is over all ranks and all parts of a step: who has all sums divides.

    - ``class_weights``, float32 ``[classes]``: see :func:`segdist.training.crops.class_weights`.
    - ``label_smoothing`` (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7): the target is 1 - ε for
      the true class plus ε / classes for every class.
    - ``ohem_thresh``: online hard example mining (Shrivastava et al. 2016, https://arxiv.org/abs/1604.03540; for pixels
      as in the official HRNet's OhemCrossEntropy): only pixels count whose true class is given less than this
      probability; of each image at least the share ``min_kept`` of its labelled pixels, hardest first. The official
      code counts over a GPU's batch; here it is by image, so that ranks and parts of a step do not change the choice.
      0 takes all pixels.
    """

    class_weights: Tensor
    label_smoothing: float = 0.0
    ohem_thresh: float = 0.0
    min_kept: float = 0.0625

    def __call__(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """Shapes: logits float32 ``[n, classes, h, w]``, labels uint8 ``[n, h, w]`` → a scalar, and the weight."""
        return self.cross_entropy(logits, self.select_hard_pixels(logits, labels))

    def select_hard_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The labels, with IGNORE for pixels that are not hard enough; shapes as of a call → uint8 ``[n, h, w]``."""
        if self.ohem_thresh == 0:
            return labels
        return torch.where(self._hard_pixels(logits.detach(), labels), labels, IGNORE)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """As a call, but over all labelled pixels, easy ones too."""
        targets = labels.long()
        loss = F.cross_entropy(
            logits,
            targets,
            self.class_weights,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        pixels = torch.bincount(labels.flatten(), minlength=IGNORE + 1)[: len(self.class_weights)]
        return loss, float(pixels.double() @ self.class_weights.double())

    def _hard_pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Which pixels are hard enough; bool ``[n, h, w]``."""
        labelled = labels != IGNORE
        truth = torch.where(labelled, labels, 0).long()
        probability = logits.softmax(1).gather(1, truth[:, None])[:, 0]
        hard = torch.zeros_like(labelled)
        for image in range(len(labels)):
            given = probability[image][labelled[image]]
            if given.numel() == 0:
                continue
            least = max(1, math.ceil(self.min_kept * given.numel()))
            hardest = given.kthvalue(least).values
            hard[image] = (probability[image] < self.ohem_thresh) | (probability[image] <= hardest)
        return hard & labelled
