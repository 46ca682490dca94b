"""Where Cityscapes keeps its files; standard library only.

::

    leftImg8bit/{train,val,test}/<city>/<city>_<seq>_<frame>_leftImg8bit.png     8-bit RGB
    gtFine/{train,val,test}/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png      8-bit label ids

Every file of that form has its partner: an image without a label, and a label without an image, is an error, and so is
a folder that cannot be read. A data set that is not whole would train and score on less than it says.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from segdist.data.png import DataError

IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelIds.png"
_ZIP = {"leftImg8bit": "leftImg8bit_trainvaltest.zip", "gtFine": "gtFine_trainvaltest.zip"}


@dataclass(frozen=True)
class Sample:
    """One image and its label file.

    ``stem`` is ``<city>_<seq>_<frame>``, and tells a sample from all others of its split: where several folders have
    files of one name, their folder's name stands before it.
    """

    stem: str
    image: Path
    label: Path


def list_split(root: str | Path, split: str) -> tuple[Sample, ...]:
    """All samples of a split, ordered by city and name.

    Raises:
        DataError: where the root is no Cityscapes folder, a folder cannot be read, the split is empty, or an image or
            a label has no partner.
    """
    images_folder, labels_folder = Path(root) / "leftImg8bit" / split, Path(root) / "gtFine" / split
    images, others = _list_files(images_folder, IMAGE_SUFFIX)
    if not images:
        raise DataError(_no_images(images_folder, others))
    labels, _ = _list_files(labels_folder, LABEL_SUFFIX, may_lack=True)
    if without_label := [key for key in images if key not in labels]:
        raise DataError(_missing_labels(labels_folder, without_label, len(images)))
    if without_image := [key for key in labels if key not in images]:
        raise DataError(_missing_images(images_folder, without_image, len(labels), others))
    return _unique(tuple(Sample(key[1], images[key], labels[key]) for key in sorted(images)))


def _list_files(folder: Path, suffix: str, may_lack: bool = False) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """The files ``<city>/<stem><suffix>`` of a split's folder by (city, stem), and the names of all other files.

    Hidden files are left out: file managers and archives of other systems leave some (``._name``).
    """
    found: dict[tuple[str, str], Path] = {}
    others: list[str] = []
    for city, is_folder in _scan(folder, may_lack):
        if not is_folder:
            others.append(city)
            continue
        for name, _ in _scan(folder / city):
            if name.endswith(suffix):
                found[city, name[: -len(suffix)]] = folder / city / name
            else:
                others.append(f"{city}/{name}")
    return found, others


def _scan(folder: Path, may_lack: bool = False) -> list[tuple[str, bool]]:
    """The names in a folder that are not hidden, in order, and which of them are folders."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        if may_lack:
            return []
        raise DataError(
            f"{folder}: is no folder; --data must be the Cityscapes root, which holds "
            "leftImg8bit/{train,val,test} and gtFine/{train,val,test}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read ({error.strerror}), so its images would be left out; "
            "let its owner allow it (chmod -R a+rX), or mount it again"
        ) from error


def _no_images(folder: Path, others: list[str]) -> str:
    text = f"{folder}: holds no <city>/*{IMAGE_SUFFIX}; "
    if not others:
        return text + f"unpack {_ZIP['leftImg8bit']} there"
    return (
        f"{text}there {_count(len(others), 'file')} of other names, such as {sorted(others)[0]}; images must be "
        f"PNG files named <name>{IMAGE_SUFFIX}, their labels <name>{LABEL_SUFFIX}: convert or rename them"
    )


def _count(number: int, noun: str) -> str:
    return f"is 1 {noun}" if number == 1 else f"are {number} {noun}s"


def _missing_labels(folder: Path, keys: list[tuple[str, str]], total: int) -> str:
    city, stem = keys[0]
    first = folder / city / f"{stem}{LABEL_SUFFIX}"
    more = f" (and {len(keys) - 1} more, of {total} images)" if len(keys) > 1 else ""
    train_ids = first.with_name(first.name.replace("labelIds", "labelTrainIds"))
    if train_ids.exists():
        return (
            f"{first}: is missing{more}, but {train_ids.name} is there: labelIds are expected, not trainIds; "
            f"unpack {_ZIP['gtFine']} again"
        )
    return f"{first}: is missing{more}; unpack {_ZIP['gtFine']} into the same root as the images"


def _missing_images(folder: Path, keys: list[tuple[str, str]], total: int, others: list[str]) -> str:
    city, stem = keys[0]
    first = folder / city / f"{stem}{IMAGE_SUFFIX}"
    more = f" (and {len(keys) - 1} more, of {total} labels)" if len(keys) > 1 else ""
    alike = next((name for name in others if name.startswith(f"{city}/{stem}")), None)
    if alike is not None:
        return f"{first}: is missing{more}, but {alike} is there; convert or rename it"
    return f"{first}: is missing{more}, its label is there; copy the images again: the copy was interrupted"


def _unique(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples with stems of their own, so that no file that is named by one overwrites another's."""
    counts = Counter(sample.stem for sample in samples)
    named = tuple(
        sample if counts[sample.stem] == 1 else replace(sample, stem=f"{sample.image.parent.name}_{sample.stem}")
        for sample in samples
    )
    again = [stem for stem, count in Counter(sample.stem for sample in named).items() if count > 1]
    if again:
        files = ", ".join(str(sample.image) for sample in named if sample.stem == again[0])
        raise DataError(f"{files}: have one name ({again[0]}) with that of their folder; rename one of them")
    return named
