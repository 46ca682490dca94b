"""Score a net on images: the same loop for validation, evaluation and quantization."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from segdist.data.dataset import WholeImages
from segdist.data.labels import IGNORE
from segdist.metrics import Confusion
from segdist.models.inference import Net, predict_logits, resize_input, to_input
from segdist.runtime.collectives import Collectives

OnImage = Callable[[int, Tensor], None]
"""Told the index of an image and the predicted class of each of its pixels, uint8 ``[H, W]``."""


@dataclass
class Score:
    """A confusion matrix, the summed cross-entropy over its pixels (nats), and the images counted."""

    confusion: Confusion
    loss_sum: float = 0.0
    images: int = 0

    @property
    def loss(self) -> float:
        """Mean cross-entropy of a counted pixel; 0 where nothing was counted."""
        return self.loss_sum / max(self.confusion.pixels, 1)

    def sum_over(self, collectives: Collectives) -> None:
        """Make it the score of all ranks' images, on every rank."""
        collectives.sum(self.confusion.matrix)
        rest = collectives.sum(torch.tensor([self.loss_sum, float(self.images)], dtype=torch.float64))
        self.loss_sum, self.images = float(rest[0]), int(rest[1])


def score_images(
    net: Net,
    images: WholeImages,
    indices: Iterable[int],
    size: tuple[int, int] | None,
    classes: int,
    context: contextlib.AbstractContextManager[object] | None = None,
    on_image: OnImage | None = None,
) -> Score:
    """Predict the images of ``indices`` one by one and count at the label's own resolution.

    Args:
        net: in eval mode.
        images: the split.
        indices: which of its images.
        size: what the net sees; None shows it the label's own size.
        classes: number of classes.
        context: for example autocast.
        on_image: see :data:`OnImage`.
    """
    score = Score(Confusion(classes))
    with torch.inference_mode(), context or contextlib.nullcontext():
        for index in indices:
            image, label = images[index]
            truth = torch.from_numpy(label)
            inputs = to_input(torch.from_numpy(image)[None])
            inputs = resize_input(inputs, size or (truth.shape[0], truth.shape[1]))
            logits = predict_logits(net, inputs, (truth.shape[0], truth.shape[1]))
            prediction = logits[0].argmax(0).to(torch.uint8)
            score.confusion.update(truth, prediction)
            score.loss_sum += float(F.cross_entropy(logits, truth[None].long(), ignore_index=IGNORE, reduction="sum"))
            score.images += 1
            if on_image is not None:
                on_image(index, prediction)
    return score
