"""Label sets: which Cityscapes labels are which class.

A label set is a TOML file; ``street13`` and ``cityscapes19`` come with the package, any other is given by its path::

    name = "mine"
    ignore = ["sky"]                 # evaluated labels that belong to no class
    [[classes]]
    id = 0
    name = "ground"
    color = [128, 64, 128]           # for overlays, 8-bit RGB
    members = ["road", "sidewalk"]   # names as in the official table

Only the standard library is imported: a login node checks a label set without numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdist.config import ConfigError, read_toml

IGNORE = 255
"""Train id of pixels that count neither in the loss nor in a score."""

LABEL_IDS: Mapping[str, int] = {
    "unlabeled": 0,
    "ego vehicle": 1,
    "rectification border": 2,
    "out of roi": 3,
    "static": 4,
    "dynamic": 5,
    "ground": 6,
    "road": 7,
    "sidewalk": 8,
    "parking": 9,
    "rail track": 10,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "guard rail": 14,
    "bridge": 15,
    "tunnel": 16,
    "pole": 17,
    "polegroup": 18,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "caravan": 29,
    "trailer": 30,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Official label ids (cityscapesScripts, helpers/labels.py); the licence plate, -1 there, is in no labelIds file."""

EVALUATED = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
"""The 19 labels that the benchmark evaluates, in the order of their official train ids."""

BUILT_IN = ("street13", "cityscapes19")


@dataclass(frozen=True)
class LabelSet:
    """Classes by train id: their names, colours (8-bit RGB) and the official labels in each."""

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    members: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.classes)

    def table(self) -> bytes:
        """256 bytes that turn a labelId into a train id, 255 where the pixel is ignored."""
        table = bytearray([IGNORE] * 256)
        for train_id, names in enumerate(self.members):
            for name in names:
                table[LABEL_IDS[name]] = train_id
        return bytes(table)


def load_label_set(name: str) -> LabelSet:
    """Load ``street13``, ``cityscapes19`` or the TOML file of that path.

    Raises:
        ConfigError: where there is none of that name, or the file describes no label set.
    """
    path = Path(__file__).parent / "labelsets" / f"{name}.toml" if name in BUILT_IN else Path(name)
    if name not in BUILT_IN and not path.is_file():
        raise ConfigError(
            f"--labels {name}: is neither {' nor '.join(BUILT_IN)} nor a file; give one of these names or a TOML file"
        )
    return label_set_from(read_toml(path), name)


def label_set_from(values: Mapping[str, Any], source: str) -> LabelSet:
    """Build a label set from a parsed TOML file; ``source`` is its name in messages.

    Raises:
        ConfigError: for an unknown key or label, ids with a hole, a label in two classes, or an evaluated label in
            none that is not under ``ignore``.
    """

    def refuse(message: str) -> ConfigError:
        return ConfigError(f"label set {source}: {message}")

    unknown = set(values) - {"name", "ignore", "classes"}
    if unknown:
        raise refuse(f"unknown key {sorted(unknown)[0]!r}; known: name, ignore, classes")
    entries = values.get("classes")
    if not isinstance(entries, Sequence) or not entries:
        raise refuse("has no classes; add [[classes]] tables")
    for entry in entries:
        if not isinstance(entry, Mapping) or set(entry) != {"id", "name", "color", "members"}:
            raise refuse(f"class {entry!r}: must have exactly the keys id, name, color, members")
        if not _is_color(entry["color"]):
            raise refuse(f"class {entry['name']!r}: color {entry['color']!r} must be three numbers from 0 to 255")
    entries = sorted(entries, key=lambda entry: entry["id"])
    ids = [entry["id"] for entry in entries]
    if ids != list(range(len(ids))):
        missing = sorted(set(range(len(ids))) - set(ids))
        raise refuse(
            f"class ids {ids}: have a hole or a double at {missing[0] if missing else ids[-1]}; "
            f"number them 0 to {len(ids) - 1}"
        )
    ignored = list(values.get("ignore", []))
    taken: dict[str, str] = dict.fromkeys(ignored, "ignore")
    for label in ignored:
        if label not in LABEL_IDS:
            raise refuse(f"unknown label {label!r} under ignore; known: {', '.join(LABEL_IDS)}")
    for entry in entries:
        for label in entry["members"]:
            if label not in LABEL_IDS:
                raise refuse(f"unknown label {label!r} in class {entry['name']!r}; known: {', '.join(LABEL_IDS)}")
            if label in taken:
                raise refuse(f"label {label!r} is in {taken[label]!r} and in {entry['name']!r}; keep it in one")
            taken[label] = entry["name"]
    left_out = [label for label in EVALUATED if label not in taken]
    if left_out:
        raise refuse(f"has a hole: {', '.join(left_out)} in no class; add to a class or to ignore = [...]")
    return LabelSet(
        name=str(values.get("name", source)),
        classes=tuple(str(entry["name"]) for entry in entries),
        colors=tuple((entry["color"][0], entry["color"][1], entry["color"][2]) for entry in entries),
        members=tuple(tuple(entry["members"]) for entry in entries),
    )


def _is_color(color: Any) -> bool:
    return (
        isinstance(color, Sequence)
        and len(color) == 3
        and all(isinstance(part, int) and 0 <= part <= 255 for part in color)
    )
