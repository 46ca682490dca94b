"""Where Cityscapes keeps its files, and what a PNG header says; standard library only.

::

    leftImg8bit/{train,val,test}/<city>/<city>_<seq>_<frame>_leftImg8bit.png     8-bit RGB
    gtFine/{train,val,test}/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png      8-bit label ids
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from segdist.config import ConfigError

IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelIds.png"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"


class DataError(ConfigError):
    """A data set that cannot be used. The message names the file, the rule and the fix."""


@dataclass(frozen=True)
class Sample:
    """One image and its label file; ``stem`` is ``<city>_<seq>_<frame>``."""

    stem: str
    image: Path
    label: Path


def list_split(root: str | Path, split: str) -> tuple[Sample, ...]:
    """All samples of a split, ordered by city and name.

    Raises:
        DataError: where the root is no Cityscapes folder, the split is empty, or an image has no label file.
    """
    images = Path(root) / "leftImg8bit" / split
    if not images.is_dir():
        raise DataError(
            f"{images}: is no folder; --data must be the Cityscapes root, which holds "
            "leftImg8bit/{train,val,test} and gtFine/{train,val,test}"
        )
    samples = []
    for image in sorted(images.glob(f"*/*{IMAGE_SUFFIX}")):
        stem = image.name[: -len(IMAGE_SUFFIX)]
        label = Path(root) / "gtFine" / split / image.parent.name / f"{stem}{LABEL_SUFFIX}"
        samples.append(Sample(stem, image, label))
    labels = set((Path(root) / "gtFine" / split).glob(f"*/*{LABEL_SUFFIX}"))
    missing = [sample for sample in samples if sample.label not in labels]
    if not samples:
        raise DataError(f"{images}: holds no <city>/*{IMAGE_SUFFIX}; unpack leftImg8bit_trainvaltest.zip there")
    if missing:
        raise DataError(_missing_label(missing))
    return tuple(samples)


def _missing_label(missing: list[Sample]) -> str:
    first = missing[0].label
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    train_ids = first.with_name(first.name.replace("labelIds", "labelTrainIds"))
    if train_ids.exists():
        return (
            f"{first}: is missing{more}, but {train_ids.name} is there: labelIds are expected, not trainIds; "
            "unpack gtFine_trainvaltest.zip again"
        )
    return f"{first}: is missing{more}; unpack gtFine_trainvaltest.zip into the same root as the images"


def png_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels from a PNG's header (PNG specification, 11.2.2), without decoding it.

    Raises:
        DataError: where the file cannot be read, is no PNG, or does not end as one (a copy that was cut short).
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
            file.seek(max(-len(_END), -file.seek(0, 2)), 2)
            end = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
    if len(head) < 24 or not head.startswith(_SIGNATURE):
        raise DataError(f"{path}: is not a PNG file; copy it again")
    if end != _END:
        raise DataError(f"{path}: is cut short (a PNG ends with IEND); copy it again")
    width, height = struct.unpack(">II", head[16:24])
    return height, width
