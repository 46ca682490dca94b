"""submitit's paths, without the symbolic link by which it keeps the first name of a submitted script."""

from __future__ import annotations

from pathlib import Path

from submitit.core import utils


class LinklessPaths(utils.JobPaths):
    """Where a job's files are. The scheduler has its own copy of the script; not every file system has links."""

    def move_temporary_file(self, tmp_path: Path | str, name: str, keep_as_symlink: bool = False) -> None:
        """Give a file its place."""
        super().move_temporary_file(tmp_path, name)
