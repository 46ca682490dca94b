"""Predictions as the Cityscapes server and cityscapesScripts take them: PNGs of official label ids."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segdist.config import ConfigError
from segdist.data.labels import LABEL_IDS, LabelSet

SUFFIX = "_pred_labelIds.png"
"""Ends the name of an exported prediction; it begins with ``<city>_<seq>_<frame>``, which is all the evaluator asks."""


class LabelIdEncoder:
    """Turns predicted classes into official label ids.

    A class of several labels gets the id of its first one: right within the class, and no answer to the official
    benchmark of 19 classes; ``official`` is False then.

    Raises:
        ConfigError: for a class without a label.
    """

    def __init__(self, labels: LabelSet) -> None:
        for name, members in zip(labels.classes, labels.members):
            if not members:
                raise ConfigError(f"--export: class {name!r} of label set {labels.name} has no label; give it a member")
        self.official = all(len(members) == 1 for members in labels.members)
        self._ids = np.array([LABEL_IDS[members[0]] for members in labels.members], np.uint8)

    def encode_png(self, prediction: NDArray[np.uint8]) -> bytes:
        """The file of one prediction: 8-bit grey PNG of label ids.

        Args:
            prediction: class indices, uint8 ``[H, W]``.
        """
        buffer = io.BytesIO()
        Image.fromarray(self._ids[prediction]).save(buffer, "PNG")
        return buffer.getvalue()
