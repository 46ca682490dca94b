"""submitit's Slurm executor, for a function that runs once per job, on the first node."""

from __future__ import annotations

import submitit


class BatchExecutor(submitit.SlurmExecutor):
    """As submitit's, but the batch shell becomes the function's process: signals for the script then reach it."""

    @property
    def _submitit_command_str(self) -> str:
        return f"exec {super()._submitit_command_str}"

    @classmethod
    def affinity(cls) -> int:
        """A script can be shown where there is no Slurm."""
        return 2
