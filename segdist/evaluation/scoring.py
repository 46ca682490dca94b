"""Score a net on images: the same loop for validation, evaluation and quantization."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from segdist.data.cityscapes import WholeImages
from segdist.data.labels import IGNORE
from segdist.data.prefetch import prefetch
from segdist.evaluation.metrics import ConfusionMatrix
from segdist.evaluation.tta import InferenceMode
from segdist.models.forward import Net, to_input, upsampled_rows
from segdist.runtime.collectives import Collectives

OnImage = Callable[[int, Tensor], None]
"""Told the index of an image and the predicted class of each of its pixels, uint8 ``[H, W]``."""

PARTS = ("decode_wait", "net", "resize", "count")
"""Where the time of scoring goes: waiting for the decoder, the net itself, normalizing and resizing its input, and
upsampling its logits and counting pixels."""


@dataclass
class Score:
    """A confusion matrix, the summed cross-entropy over its pixels (nats), and the images counted.

    ``by_image`` has mIoU and pixel accuracy in [0, 1] (NaN where no pixel counts) of each image that THIS rank scored;
    ``seconds`` says where its time went, by :data:`PARTS`.
    """

    confusion: ConfusionMatrix
    loss_sum: float = 0.0
    images: int = 0
    by_image: dict[int, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @property
    def loss(self) -> float:
        """Mean cross-entropy of a counted pixel; 0 where nothing was counted."""
        return self.loss_sum / max(self.confusion.pixels, 1)

    def sum_over(self, collectives: Collectives) -> None:
        """Make it the score of all ranks' images, on every rank; ``by_image`` and ``seconds`` stay this rank's own."""
        collectives.sum(self.confusion.matrix)
        rest = collectives.sum(torch.tensor([self.loss_sum, float(self.images)], dtype=torch.float64))
        self.loss_sum, self.images = float(rest[0]), int(rest[1])

    @contextlib.contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start


def score_images(
    net: Net,
    images: WholeImages,
    indices: Iterable[int],
    view: InferenceMode | tuple[int, int] | None,
    classes: int,
    autocast: contextlib.AbstractContextManager[object] | None = None,
    on_image: OnImage | None = None,
    into: Score | None = None,
) -> Score:
    """Predict the images of ``indices`` one by one and count at the label's own resolution.

    The next image is decoded meanwhile; no more than these two are in memory.

    Args:
        net: in eval mode.
        images: the split.
        indices: which of its images.
        view: how the net sees an image, or just the size at which it does; None is the label's own size.
        classes: number of classes.
        autocast: the context of a pass, for example that of bf16.
        on_image: see :data:`OnImage`.
        into: count on in this score, and return it.
    """
    how = view if isinstance(view, InferenceMode) else InferenceMode(view)
    score = into or Score(ConfusionMatrix(classes))

    def timed(inputs: Tensor) -> Tensor:
        with score.clock("net"):
            return net(inputs)

    with torch.inference_mode(), autocast or contextlib.nullcontext():
        waiting = time.perf_counter()
        for index, (image, label) in prefetch(images.__getitem__, indices):
            score.seconds["decode_wait"] += time.perf_counter() - waiting
            truth = torch.from_numpy(label)
            inside = score.seconds["net"]
            with score.clock("resize"):
                inputs = to_input(torch.from_numpy(image)[None])
                logits = how.predict_coarse(timed, inputs, (truth.shape[0], truth.shape[1]))[0]
            score.seconds["resize"] -= score.seconds["net"] - inside
            with score.clock("count"):
                prediction, loss = argmax_and_loss(logits, truth)
                one = ConfusionMatrix(classes)
                one.update(truth, prediction)
                score.confusion.matrix += one.matrix
                score.by_image[index] = (one.miou(), one.pixel_accuracy())
                score.loss_sum += loss
                score.images += 1
            if on_image is not None:
                on_image(index, prediction)
            waiting = time.perf_counter()
    return score


def argmax_and_loss(logits: Tensor, truth: Tensor) -> tuple[Tensor, float]:
    """The class of each pixel, and the summed cross-entropy of those that count (nats).

    Shapes: logits float32 ``[classes, h, w]``, truth uint8 ``[H, W]`` → uint8 ``[H, W]``.
    """
    prediction, loss = torch.empty_like(truth), 0.0
    for rows, part in upsampled_rows(logits, (truth.shape[0], truth.shape[1])):
        prediction[rows] = part.max(0).indices.to(torch.uint8)  # argmax takes three times as long
        expected = truth[rows][None].long()
        loss += float(F.cross_entropy(part[None], expected, ignore_index=IGNORE, reduction="sum"))
    return prediction, loss
