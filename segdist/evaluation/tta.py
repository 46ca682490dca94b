"""How a net is applied to an image: whole, by a sliding window, and with test-time augmentation (TTA): at several
scales, mirrored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from segdist.config import parse_size
from segdist.models.forward import Net, coarse_logits, predict_logits, resize_input

Size = tuple[int, int]


class InferenceModeConfig(Protocol):
    """The options of an inference mode, as :class:`segdist.config.EvaluationConfig` documents them."""

    @property
    def window(self) -> str: ...
    @property
    def stride(self) -> str: ...
    @property
    def scales(self) -> tuple[float, ...]: ...
    @property
    def mirror(self) -> bool: ...


@dataclass(frozen=True)
class InferenceMode:
    """What the net sees of an image, and how the outputs of several passes become one.

    Args:
        size: height and width to which the image is resized; None takes that of the output, the label's own.
        window: height and width of a window that slides over the resized image; None shows it whole.
        stride: steps of the window, down and right.
        scales: factors on ``size``; their outputs are averaged.
        mirror: average with the output of the mirrored image.
    """

    size: Size | None = None
    window: Size | None = None
    stride: Size | None = None
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    @staticmethod
    def from_config(config: InferenceModeConfig, size: str) -> InferenceMode:
        """The mode that a config asks for, at the size ``HEIGHTxWIDTH``; an empty one takes that of the output."""
        window = parse_size(config.window, "window") if config.window else None
        stride = parse_size(config.stride, "stride") if config.stride else None
        return InferenceMode(parse_size(size) if size else None, window, stride, config.scales, config.mirror)

    @property
    def num_passes(self) -> int:
        """Forward passes whose outputs are averaged."""
        return len(self.scales) * (2 if self.mirror else 1)

    def predict(self, net: Net, inputs: Tensor, output_size: Size) -> Tensor:
        """Logits at the size ``output_size``; of several passes, the logarithm of the mean of their probabilities.

        Args:
            net: in eval mode.
            inputs: normalized image at its own resolution, float32 ``[1, 3, H, W]``.
            output_size: height and width of the result.

        Returns:
            float32 ``[1, classes, *output_size]``; its softmax are the probabilities either way.
        """
        logits = self.predict_coarse(net, inputs, output_size)
        if logits.shape[-2:] == output_size:
            return logits
        return F.interpolate(logits, size=output_size, mode="bilinear", align_corners=False)

    def predict_coarse(self, net: Net, inputs: Tensor, output_size: Size) -> Tensor:
        """As :meth:`predict`, but of a single pass at the resolution that the net gives, before it is upsampled.

        Probabilities are added as logarithms: those below the smallest float would else make an infinite loss.
        """
        if self.num_passes == 1:
            return self._logits(net, inputs, output_size, self.scales[0])
        total: Tensor | None = None
        for scale in self.scales:
            for logits in self._mirrored_and_not(net, inputs, output_size, scale):
                log_probabilities = logits.log_softmax(1)
                total = log_probabilities if total is None else torch.logaddexp(total, log_probabilities, out=total)
        assert total is not None  # there is a scale
        return total.sub_(math.log(self.num_passes))

    def _mirrored_and_not(self, net: Net, inputs: Tensor, output_size: Size, scale: float) -> Iterator[Tensor]:
        for mirrored in (False, True) if self.mirror else (False,):
            flipped = inputs.flip(3) if mirrored else inputs
            logits = self._logits(net, flipped, output_size, scale)
            logits = F.interpolate(logits, size=output_size, mode="bilinear", align_corners=False)
            yield logits.flip(3) if mirrored else logits

    def _logits(self, net: Net, inputs: Tensor, output_size: Size, scale: float) -> Tensor:
        """Of one pass, at the resolution that it gives."""
        height, width = self.size or output_size
        inputs = resize_input(inputs, (max(1, round(height * scale)), max(1, round(width * scale))))
        if self.window is None:
            return coarse_logits(net, inputs)
        return slide_inference(net, inputs, self.window, self.stride or default_stride(self.window))


def default_stride(window: Size) -> Size:
    """Two thirds of the window, as mmsegmentation's Cityscapes configs have it."""
    return max(1, window[0] * 2 // 3), max(1, window[1] * 2 // 3)


def window_offsets(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side: every ``stride`` pixels, the last one flush with the end."""
    last = max(length - window, 0)
    return sorted({*range(0, last, stride), last})


def slide_inference(net: Net, inputs: Tensor, window: Size, stride: Size) -> Tensor:
    """Logits of an image seen through a sliding window; where windows overlap, their mean.

    A window larger than the image is cut to it. One window at a time is in memory.

    Shapes: float32 ``[1, 3, H, W]`` → float32 ``[1, classes, H, W]``.
    """
    height, width = inputs.shape[-2:]
    high, wide = min(window[0], height), min(window[1], width)
    total: Tensor | None = None
    count = torch.zeros(height, width)
    for top in window_offsets(height, high, stride[0]):
        for left in window_offsets(width, wide, stride[1]):
            rows, columns = slice(top, top + high), slice(left, left + wide)
            logits = predict_logits(net, inputs[..., rows, columns], (high, wide))
            if total is None:
                total = torch.zeros(1, logits.shape[1], height, width)
            total[..., rows, columns] += logits
            count[rows, columns] += 1
    assert total is not None  # there is a window
    return total / count
