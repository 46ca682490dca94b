"""Sweeps: one command line into many, one for each combination of the values to try."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.planning.resources import Resources
from jobs.planning.submissions import Submission
from segdist.config import require

MOST = 1000
"""Combinations that are taken for a slip of the pen."""
LONGEST_NAME = 255
"""Bytes of a folder's name that every file system of a cluster takes."""
_OF_ONE_RUN = ("nodes", "ranks_per_node", "cores_per_node")
"""Resources that runs of this machine may differ in; a cluster's are elements of one job array."""


@dataclass(frozen=True)
class Element:
    """One combination: the name of its run folder, and its options."""

    name: str
    argv: tuple[str, ...]


def split_sweep(argv: Sequence[str]) -> tuple[list[str], list[Element]]:
    """Take every ``--sweep KEY=VALUE,VALUE`` out of a command line.

    Returns:
        the rest, and each combination in the order in which the values stand; none where nothing is swept.

    Raises:
        ConfigError: as :func:`combine`.
    """
    rest: list[str] = []
    texts: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--sweep":
            texts.append(next(words, ""))
        elif word.startswith("--sweep="):
            texts.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, combine(texts)


def combine(texts: Sequence[str]) -> list[Element]:
    """Every combination of what ``KEY=VALUE,VALUE`` say, in the order in which the values stand.

    Raises:
        ConfigError: for a sweep of another form, far too many combinations, or two of them with one name.
    """
    axes: list[tuple[str, list[str]]] = []
    for text in texts:
        match = re.fullmatch(r"([A-Za-z][\w-]*)=([^,]+(?:,[^,]+)*)", text)
        require(match is not None, f"--sweep {text}: must be KEY=VALUE,VALUE; give for example --sweep lr=0.01,0.05")
        assert match is not None
        key = match[1].replace("_", "-")
        require(key not in dict(axes), f"--sweep {text}: {key} is swept already; give all its values at once")
        axes.append((key, match[2].split(",")))
    count = 1
    for _, values in axes:
        count *= len(values)
    require(count <= MOST, f"--sweep: makes {count} runs; give at most {MOST}")
    if not axes:
        return []
    combinations = list(itertools.product(*([(key, value) for value in values] for key, values in axes)))
    elements = [_element(pairs) for pairs in combinations]
    taken: dict[str, Sequence[tuple[str, str]]] = {}
    for element, pairs in zip(elements, combinations):
        require(
            element.name not in taken,
            f"--sweep: {_words(taken.get(element.name, ()))} and {_words(pairs)} have one folder, {element.name}; "
            "give values whose names differ",
        )
        require(
            len(element.name.encode()) <= LONGEST_NAME,
            f"--sweep: {_words(pairs)}: makes a folder's name of {len(element.name.encode())} bytes; give shorter "
            f"values, {LONGEST_NAME} bytes together",
        )
        taken[element.name] = pairs
    return elements


def check_sweep(runs: Mapping[str, Submission], cluster: str) -> None:
    """Refuse combinations that are the same run twice, or that one submission cannot start together.

    Args:
        runs: what each combination asks for, by its name.
        cluster: where they will run.

    Raises:
        ConfigError: naming the two combinations, or what they cannot differ in.
    """
    seen: dict[Submission, str] = {}
    for name, submission in runs.items():
        require(
            submission not in seen,
            f"--sweep: {seen.get(submission)} and {name} are the same run twice; give each value once",
        )
        seen[submission] = name
    require(
        len({submission.run for submission in runs.values()}) == 1,
        "--sweep run=…: every combination has a folder of its own below --run; leave run out of the sweep",
    )
    free = _OF_ONE_RUN if cluster == "local" else ()
    for field in dataclasses.fields(Resources):
        values = dict.fromkeys(getattr(submission.resources, field.name) for submission in runs.values())
        require(
            field.name in free or len(values) == 1,
            f"--sweep {field.name}=…: the runs of a sweep are submitted together, and cannot differ in it; submit once "
            "for each",
        )


def _words(pairs: Sequence[tuple[str, str]]) -> str:
    return ",".join(f"{key}={value}" for key, value in pairs)


def _element(pairs: Sequence[tuple[str, str]]) -> Element:
    argv: list[str] = []
    for key, value in pairs:
        if value.lower() in ("true", "false"):
            argv.append(f"--{key}" if value.lower() == "true" else f"--no-{key}")
        else:
            argv += [f"--{key}", value]
    return Element(re.sub(r"[^\w.=,+-]", "-", _words(pairs)), tuple(argv))
