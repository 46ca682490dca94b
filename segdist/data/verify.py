"""Every file of a data set is looked at before the work starts, each rank taking its share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from segdist.data.cityscapes import read_png
from segdist.data.labels import EVALUATED, LABEL_IDS
from segdist.data.layout import DataError, Sample, png_size

_LARGEST_ID = max(LABEL_IDS.values())
_LARGEST_TRAIN_ID = len(EVALUATED) - 1
_SMALLEST_EVALUATED = min(LABEL_IDS[name] for name in EVALUATED)
SHOWN = 10
"""Errors named in one message."""


@dataclass
class Findings:
    """What one rank found in its share: errors with file names, and the largest label value."""

    errors: list[str] = field(default_factory=list)
    checked: int = 0
    largest_label: int = -1


def check_samples(
    samples: Iterable[Sample], full: bool, threads: int = 1, progress: Callable[[int], None] | None = None
) -> Findings:
    """Check images and labels.

    With ``full``, every image's checksums are verified and every label decoded; otherwise only headers and file ends
    are read. ``progress`` is told the number of samples done.
    """
    findings = Findings()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for error, largest in pool.map(lambda sample: _check(sample, full), samples):
            findings.checked += 1
            if error:
                findings.errors.append(error)
            findings.largest_label = max(findings.largest_label, largest)
            if progress is not None:
                progress(findings.checked)
    return findings


def _check(sample: Sample, full: bool) -> tuple[str | None, int]:
    try:
        image_size, label_size = png_size(sample.image), png_size(sample.label)
        if image_size != label_size:
            raise DataError(
                f"{sample.label}: is {label_size[0]}x{label_size[1]}, its image {image_size[0]}x{image_size[1]}; "
                "image and label must have one size; copy both again"
            )
        if not full:
            return None, -1
        try:
            with Image.open(sample.image) as picture:
                picture.verify()
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{sample.image}: is damaged ({error}); copy it again") from error
        values = np.flatnonzero(np.bincount(read_png(sample.label, "L").ravel(), minlength=256))
        refuse_label_values(sample, values.tolist())
        return None, int(values[-1])
    except DataError as error:
        return str(error), -1


def refuse_label_values(sample: Sample, values: list[int]) -> None:
    """Raise :class:`DataError` for values that no labelIds file has; ``values`` are those that occur."""
    wrong = [value for value in values if value > _LARGEST_ID]
    if wrong == [255]:
        raise DataError(
            f"{sample.label}: holds 255, which is a trainId (ignore) and no labelId (0 to {_LARGEST_ID}); "
            "labelIds are expected; unpack gtFine_trainvaltest.zip again"
        )
    if wrong:
        raise DataError(f"{sample.label}: holds the value {wrong[0]}; labelIds are 0 to {_LARGEST_ID}; copy it again")


def summarize(all_findings: Iterable[Findings], first: Sample, full: bool) -> None:
    """Judge what all ranks found.

    Raises:
        DataError: with up to ten files named; also where no label exceeds 18 in the whole data set, as then the files
            hold trainIds (every street has vegetation 21, sky 23 or a car 26 among its labelIds). Where all labels are
            below those that count, they are right: the official test split shows no others.
    """
    findings = list(all_findings)
    errors = [error for one in findings for error in one.errors]
    if errors:
        rest = f"\n  … and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        head = "" if len(errors) == 1 else f"{len(errors)} files of the data set cannot be used:\n  "
        raise DataError(head + "\n  ".join(errors[:SHOWN]) + rest)
    if full and _SMALLEST_EVALUATED <= max(one.largest_label for one in findings) <= _LARGEST_TRAIN_ID:
        raise DataError(
            f"{first.label}: no label of this data set is above {_LARGEST_TRAIN_ID}: these are trainIds; "
            "labelIds are expected; unpack gtFine_trainvaltest.zip again"
        )
