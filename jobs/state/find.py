"""Where runs are: the folders among those given, or below them, that hold one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from segdist.config import ConfigError
from segdist.run.folder import is_run_folder

SEARCH_DEPTH = 3
"""Folder levels below the one given in which runs are looked for."""


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders among ``paths`` and, where one is not a run itself, in the folders below it, by name.

    Raises:
        ConfigError: for a path that is no folder, or none of which holds a run.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"{path}: is no folder; give a run folder, or one that holds runs")
        found.update((run, None) for run in _search(path, SEARCH_DEPTH))
    if not found:
        names = ", ".join(str(path) for path in paths)
        raise ConfigError(f"{names}: holds no run; give a run folder, or one that holds runs")
    return list(found)


def _search(path: Path, depth: int) -> Iterator[Path]:
    try:
        if is_run_folder(path):
            yield path
        elif depth > 0:
            for child in sorted(path.iterdir()):
                if child.is_dir() and not child.name.startswith("."):
                    yield from _search(child, depth - 1)
    except PermissionError:
        return
