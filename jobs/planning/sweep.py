"""Sweeps: one command line into many, one for each combination of the values to try."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from segdist.config import require

MOST = 1000
"""Combinations that are taken for a slip of the pen."""


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
        ConfigError: for a sweep of another form, or far too many combinations.
    """
    rest: list[str] = []
    axes: list[tuple[str, list[str]]] = []
    words = iter(argv)
    for word in words:
        if word != "--sweep" and not word.startswith("--sweep="):
            rest.append(word)
            continue
        text = next(words, "") if word == "--sweep" else word.partition("=")[2]
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
        return rest, []
    combinations = itertools.product(*([(key, value) for value in values] for key, values in axes))
    return rest, [_element(pairs) for pairs in combinations]


def _element(pairs: Sequence[tuple[str, str]]) -> Element:
    argv: list[str] = []
    for key, value in pairs:
        if value.lower() in ("true", "false"):
            argv.append(f"--{key}" if value.lower() == "true" else f"--no-{key}")
        else:
            argv += [f"--{key}", value]
    return Element(re.sub(r"[^\w.=,+-]", "-", ",".join(f"{key}={value}" for key, value in pairs)), tuple(argv))
