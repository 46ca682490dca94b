"""Every file of a data set is looked at before the work starts, each rank taking its share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from segdist.data.cityscapes import read_png
from segdist.data.labels import EVALUATED, IGNORE, LABEL_IDS, LabelSet
from segdist.data.layout import Sample
from segdist.data.png import DataError, PngHeader, read_png_header

_LARGEST_ID = max(LABEL_IDS.values())
_LARGEST_TRAIN_ID = len(EVALUATED) - 1
_SMALLEST_EVALUATED = min(LABEL_IDS[name] for name in EVALUATED)
SHOWN = 10
"""Errors named in one message."""


@dataclass
class Findings:
    """What one rank found in its share: errors with file names, and the label values that occur (none if not read)."""

    errors: list[str] = field(default_factory=list)
    checked: int = 0
    label_values: set[int] = field(default_factory=set)


def check_samples(
    samples: Iterable[Sample], full: bool, threads: int = 1, progress: Callable[[int], None] | None = None
) -> Findings:
    """Check images and labels.

    Size, depth and kind of colours are read from every header, and the file's end is looked for; with ``full``, every
    image and label is decoded, and every label value looked at. ``progress`` is told the number of samples done.
    """
    findings = Findings()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for error, values in pool.map(lambda sample: _check(sample, full), samples):
            findings.checked += 1
            if error:
                findings.errors.append(error)
            findings.label_values.update(values)
            if progress is not None:
                progress(findings.checked)
    return findings


def _check(sample: Sample, full: bool) -> tuple[str | None, list[int]]:
    try:
        image, label = read_png_header(sample.image), read_png_header(sample.label)
        require_image_format(sample, image)
        require_label_format(sample, label)
        if image.size != label.size:
            raise DataError(
                f"{sample.label}: is {label.height}x{label.width}, its image {image.height}x{image.width}; "
                "image and label must have one size; copy both again"
            )
        if not full:
            return None, []
        read_png(sample.image, "RGB")
        values = np.flatnonzero(np.bincount(read_png(sample.label, "L").ravel(), minlength=256)).tolist()
        refuse_label_values(sample, values)
        return None, values
    except DataError as error:
        return str(error), []


def require_image_format(sample: Sample, header: PngHeader) -> None:
    """Raise :class:`DataError` for an image that is not 8-bit RGB."""
    if (header.depth, header.colors) != (8, "RGB"):
        raise DataError(
            f"{sample.image}: is {header}; Cityscapes images are 8-bit RGB; convert it, as by "
            'Image.open(f).convert("RGB")' + (" after scaling it to 8 bits" if header.depth > 8 else "")
        )


def require_label_format(sample: Sample, header: PngHeader) -> None:
    """Raise :class:`DataError` for a label that is not 8-bit grey, with the way to keep its values."""
    if (header.depth, header.colors) == (8, "grey"):
        return
    how = "save its values as 8-bit grey, each a labelId"
    if header.colors == "palette":
        how = (
            "save the indices themselves as 8-bit grey, Image.fromarray(np.array(Image.open(f))); "
            'convert("L") would turn them into the brightness of their colours'
        )
    elif header.colors in ("RGB", "RGBA"):
        how = "colours are no labels: save the labelId of each pixel as 8-bit grey"
    raise DataError(f"{sample.label}: is {header}; labels are 8-bit grey; {how}")


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


def summarize(all_findings: Iterable[Findings], samples: tuple[Sample, ...], labels: LabelSet | None = None) -> None:
    """Judge what all ranks found in a split.

    Args:
        all_findings: of every rank.
        samples: the split.
        labels: of a split that is trained or scored on: some pixel of it must belong to a class. None asks for none,
            as the official test split, whose labels are not public, has none.

    Raises:
        DataError: with up to ten files named; also where no label exceeds 18 in the whole split, as then the files
            may hold trainIds (streets have vegetation 21, sky 23 or a car 26 among their labelIds); and where no pixel
            counts.
    """
    findings = list(all_findings)
    errors = [error for one in findings for error in one.errors]
    if errors:
        rest = f"\n  … and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        head = "" if len(errors) == 1 else f"{len(errors)} files of the data set cannot be used:\n  "
        raise DataError(head + "\n  ".join(errors[:SHOWN]) + rest)
    values = set[int]().union(*(one.label_values for one in findings))
    if not values:
        return
    first = samples[0].label
    if _SMALLEST_EVALUATED <= max(values) <= _LARGEST_TRAIN_ID:
        raise DataError(
            f"{first}: no label of the {len(samples)} files of this split is above {_LARGEST_TRAIN_ID}: they look like "
            "trainIds, and labelIds are expected; unpack gtFine_trainvaltest.zip again, or, if these are labelIds of "
            "few classes, take them as they are with --check headers"
        )
    if labels is not None and all(labels.table()[value] == IGNORE for value in values):
        raise DataError(
            f"{first.parent.parent}: no pixel of its {len(samples)} labels belongs to a class of label set "
            f"{labels.name} (labelIds there: {', '.join(map(str, sorted(values)))}); give other --labels or other data"
        )
