"""``RUN/.replaced``: what ``--overwrite`` has set aside, until there is something new that is whole.

A scheduler may refuse the new job, and the job may end before it has anything: then what was there is not lost. What
was set aside first stays: a later thing in its place is unfinished, and is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from segdist.run.file_system import replace_file

FOLDER = ".replaced"


class Replaced:
    """The set-aside files of one run, below ``RUN/.replaced`` by the names that they had in the run."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.path = run / FOLDER

    def take(self, paths: Iterable[Path]) -> None:
        """Set files or folders of the run aside; those that are not there are passed over."""
        for path in paths:
            if not path.exists():
                continue
            target = self.path / path.relative_to(self.run)
            if target.exists():
                _remove(path)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    def keep_copy(self, path: Path) -> None:
        """Keep a copy of a file that will be written anew."""
        target = self.path / path.relative_to(self.run)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def restore(self) -> bool:
        """Put everything back in its place, over what is there now; False where nothing was set aside."""
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file()] if self.path.is_dir() else []
        for file in files:
            place = self.run / file.relative_to(self.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, place)
        if self.path.is_dir():
            shutil.rmtree(self.path)
        return bool(files)

    def holds(self, step: Path) -> bool:
        """Whether something of a step's folder is set aside."""
        return (self.path / step.relative_to(self.run)).exists()

    def discard(self, step: Path) -> None:
        """Something new of a step is whole: remove what was set aside of it."""
        folder = self.path / step.relative_to(self.run)
        if not folder.exists():
            return
        shutil.rmtree(folder)
        for parent in folder.parents:
            if parent == self.run or any(parent.iterdir()):
                break
            parent.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
