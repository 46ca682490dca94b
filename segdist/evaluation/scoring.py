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

PredictionCallback = Callable[[int, Tensor], None]
"""Given the index of an image and the predicted class of each of its pixels, uint8 ``[H, W]``."""

STAGES = ("decode_wait", "net", "resize", "count")
"""Where the time of scoring goes: waiting for the decoder, the net itself, normalizing and resizing its input, and
upsampling its logits and counting pixels."""


@dataclass
class Score:
    """A confusion matrix, the summed cross-entropy over its pixels (nats), and the images counted.

    ``per_image`` has mIoU and pixel accuracy in [0, 1] (NaN where no pixel counts) of each image that THIS rank scored;
    ``seconds`` says where its time went, by :data:`STAGES`.
    """

    confusion: ConfusionMatrix
    loss_sum: float = 0.0
    images: int = 0
    per_image: dict[int, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def loss(self) -> float:
        """Mean cross-entropy of a counted pixel; 0 where nothing was counted."""
        return self.loss_sum / max(self.confusion.pixels, 1)

    def all_reduce(self, collectives: Collectives) -> None:
        """Make it the score of all ranks' images, on every rank; ``per_image`` and ``seconds`` stay this rank's own."""
        collectives.all_reduce(self.confusion.matrix)
        rest = collectives.all_reduce(torch.tensor([self.loss_sum, float(self.images)], dtype=torch.float64))
        self.loss_sum, self.images = float(rest[0]), int(rest[1])

    def add(self, index: int, truth: Tensor, prediction: Tensor, loss: float) -> None:
        """Count one image: train ids and predicted classes, uint8 ``[H, W]``, and its summed loss (nats)."""
        confusion = ConfusionMatrix(self.confusion.classes)
        confusion.update(truth, prediction)
        self.confusion.matrix += confusion.matrix
        self.per_image[index] = (confusion.miou(), confusion.pixel_accuracy())
        self.loss_sum += loss
        self.images += 1

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start


def score_images(
    net: Net,
    images: WholeImages,
    indices: Iterable[int],
    mode: InferenceMode,
    score: Score,
    on_prediction: PredictionCallback | None = None,
) -> None:
    """Predict the images of ``indices`` one by one, and add them to ``score`` at the label's own resolution.

    The next image is decoded meanwhile; no more than these two are in memory. For another arithmetic than the net's
    own, call it within an autocast.

    Args:
        net: in eval mode.
        images: the split.
        indices: which of its images.
        mode: how the net sees an image.
        score: counts on.
        on_prediction: see :data:`PredictionCallback`.
    """

    def timed_net(inputs: Tensor) -> Tensor:
        with score.timed("net"):
            return net(inputs)

    with torch.inference_mode():
        waiting_since = time.perf_counter()
        for index, (image, label) in prefetch(images.__getitem__, indices):
            score.seconds["decode_wait"] += time.perf_counter() - waiting_since
            truth = torch.from_numpy(label)
            net_before = score.seconds["net"]
            with score.timed("resize"):
                inputs = to_input(torch.from_numpy(image)[None])
                logits = mode.predict_coarse(timed_net, inputs, (truth.shape[0], truth.shape[1]))[0]
            score.seconds["resize"] -= score.seconds["net"] - net_before
            with score.timed("count"):
                prediction, loss = argmax_and_loss(logits, truth)
                score.add(index, truth, prediction, loss)
            if on_prediction is not None:
                on_prediction(index, prediction)
            waiting_since = time.perf_counter()


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
