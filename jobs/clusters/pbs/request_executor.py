"""The plugin's executor for a typed request: the function runs once, on the first node."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.pbs.executor import PbsExecutor
from jobs.clusters.pbs.parameters import EXPORTED, exported
from jobs.clusters.pbs.resources import request_command
from jobs.clusters.pbs.script import script_text
from jobs.clusters.request import Request


class RequestExecutor(PbsExecutor):
    """Makes its script from a request, where the plugin makes one from submitit's parameters."""

    def __init__(self, request: Request, dialect: Dialect) -> None:
        super().__init__(request.folder, python=request.python or None)
        self._request = dataclasses.replace(request, exports=exported(EXPORTED))
        self._of_dialect = dialect
        self.parameters["time"] = None if request.walltime_s is None else request.walltime_s / 60

    @classmethod
    def name(cls) -> str:
        return "pbs"

    @classmethod
    def affinity(cls) -> int:
        """A script can be shown where there is no PBS."""
        return 2

    def _num_tasks(self) -> int:
        return 1

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        return script_text(dataclasses.replace(self._request, command=command), self._of_dialect)

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return request_command(self._request, str(submission_file_path), self._of_dialect)


def executor_of(request: Request, dialect: Dialect) -> RequestExecutor:
    """The executor that submits a request.

    Raises:
        ConfigError: for what the dialect does not know.
    """
    executor = RequestExecutor(request, dialect)
    executor._make_submission_file_text("true", "")
    return executor
