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

from collections.abc import Mapping
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

    def describe(self) -> str:
        """Name and size, for a log."""
        return f"label set {self.name} ({len(self)} classes)"

    def table(self) -> bytes:
        """256 bytes that turn a labelId into a train id, 255 where the pixel is ignored."""
        table = bytearray([IGNORE] * 256)
        for train_id, names in enumerate(self.members):
            for name in names:
                table[LABEL_IDS[name]] = train_id
        return bytes(table)


def load_label_set(name: str) -> LabelSet:
    """Load ``street13``, ``cityscapes19`` or the TOML file of that path; a word that is also a file is the file.

    Raises:
        ConfigError: where there is none of that name, or the file describes no label set.
    """
    path = Path(name)
    if name in BUILT_IN and not path.is_file():
        path = Path(__file__).parent / "labelsets" / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(
            f"--labels {name}: is neither {' nor '.join(BUILT_IN)} nor a file; give one of these names or a TOML file"
        )
    return label_set_from(read_toml(path), name)


def label_set_from(values: Mapping[str, Any], source: str) -> LabelSet:
    """Build a label set from a parsed TOML file; ``source`` is its name in messages.

    Raises:
        ConfigError: for an unknown key or label, a value of another type, ids with a hole, two classes of one name, a
            class without a label, a label in two classes, or an evaluated label in none that is not under ``ignore``.
    """
    try:
        return _parse(values, source)
    except _Refused as error:
        raise ConfigError(f"label set {source}: {error}") from None


class _Refused(Exception):
    """Why a file is no label set; the caller adds its name."""


def _refuse_unless(condition: bool, message: str) -> None:
    if not condition:
        raise _Refused(message)


def _parse(values: Mapping[str, Any], source: str) -> LabelSet:
    unknown = sorted(set(values) - {"name", "ignore", "classes"})
    _refuse_unless(not unknown, f"unknown key {', '.join(map(repr, unknown))}; known: name, ignore, classes")
    entries, ignored, name = values.get("classes"), values.get("ignore", []), values.get("name", source)
    if not isinstance(name, str) or not name:
        raise _Refused(f'name = {name!r}: must be a text; write for example name = "mine"')
    if not isinstance(entries, list | tuple) or not entries:
        raise _Refused("has no classes; add [[classes]] tables")
    for entry in entries:
        _require_class(entry)
    entries = sorted(entries, key=lambda entry: int(entry["id"]))
    ids = [entry["id"] for entry in entries]
    missing = sorted(set(range(len(ids))) - set(ids))
    _refuse_unless(
        ids == list(range(len(ids))),
        f"class ids {ids}: have a hole or a double at {missing[0] if missing else ids[-1]}; "
        f"number them 0 to {len(ids) - 1}",
    )
    names = [entry["name"] for entry in entries]
    double = next((one for one in names if names.count(one) > 1), None)
    _refuse_unless(double is None, f"two classes have the name {double!r}; give each its own")
    _require_labels(ignored, "ignore")
    taken: dict[str, str] = dict.fromkeys(ignored, "ignore")
    for entry in entries:
        for label in entry["members"]:
            if label in taken:
                raise _Refused(f"label {label!r} is in {taken[label]!r} and in {entry['name']!r}; keep it in one")
            taken[label] = entry["name"]
    left_out = [label for label in EVALUATED if label not in taken]
    _refuse_unless(not left_out, f"has a hole: {', '.join(left_out)} in no class; add to a class or to ignore = [...]")
    return LabelSet(
        name=name,
        classes=tuple(names),
        colors=tuple((entry["color"][0], entry["color"][1], entry["color"][2]) for entry in entries),
        members=tuple(tuple(entry["members"]) for entry in entries),
    )


def _require_class(entry: object) -> None:
    if not isinstance(entry, Mapping) or set(entry) != {"id", "name", "color", "members"}:
        raise _Refused(f"class {entry!r}: must have exactly the keys id, name, color, members")
    name = entry["name"]
    _refuse_unless(isinstance(name, str) and bool(name.strip()), f"class {entry!r}: name {name!r} must be a text")
    _refuse_unless(
        _is_whole(entry["id"]),
        f"class {name!r}: id {entry['id']!r} must be a whole number, as id = 0, without quotes",
    )
    color = entry["color"]
    _refuse_unless(
        isinstance(color, list | tuple)
        and len(color) == 3
        and all(_is_whole(part) and 0 <= part <= 255 for part in color),
        f"class {name!r}: color {color!r} must be three numbers from 0 to 255",
    )
    _require_labels(entry["members"], f"class {name!r}")
    _refuse_unless(bool(entry["members"]), f"class {name!r}: has no members, so no pixel can be of it; name its labels")


def _require_labels(labels: object, where: str) -> None:
    """Refuse what is no list of the official labels' names, each once."""
    if not isinstance(labels, list | tuple):
        raise _Refused(f'{where}: {labels!r} must be a list of labels; write for example ["road", "sidewalk"]')
    for label in labels:
        if not isinstance(label, str) or label not in LABEL_IDS:
            place = "under ignore" if where == "ignore" else f"in {where}"
            raise _Refused(f"unknown label {label!r} {place}; known: {', '.join(LABEL_IDS)}")
        if labels.count(label) > 1:
            raise _Refused(f"label {label!r} is in {where} twice; keep it once")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
