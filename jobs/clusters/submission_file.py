"""submitit's paths, without the symbolic link by which it keeps the first name of a submitted script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from submitit.core import utils


class LinklessPaths(utils.JobPaths):
    """Where a job's files are. The scheduler has its own copy of the script; not every file system has links."""

    def move_temporary_file(self, tmp_path: Path | str, name: str, keep_as_symlink: bool = False) -> None:
        """Give a file its place."""
        super().move_temporary_file(tmp_path, name)


class LinklessJob:
    """Mix-in for submitit's jobs, before their class."""

    _paths: utils.JobPaths

    def __init__(self, folder: Path | str, job_id: str, tasks: Any = (0,)) -> None:
        super().__init__(folder, job_id, tasks)  # type: ignore[call-arg]
        self._paths = LinklessPaths(folder, job_id=job_id, task_id=self.task_id)  # type: ignore[attr-defined]
