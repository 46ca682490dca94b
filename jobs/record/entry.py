"""What a scheduler says about one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["waiting", "running", "ended", "gone", "unknown"]
"""``gone``: the scheduler knows the job no more; ``unknown``: it could not be asked."""


@dataclass(frozen=True)
class Entry:
    """What a scheduler says about one job: its phase, the scheduler's own word, why it waits or how it ended."""

    phase: Phase
    state: str = ""
    reason: str = ""
    nodes: str = ""
    elapsed_s: float | None = None
    restarts: int = 0
    again: str = ""
    """Why it was started again, where the scheduler did that by itself."""

    @property
    def alive(self) -> bool | None:
        """Whether something will still happen; None where that is not known."""
        return None if self.phase == "unknown" else self.phase in ("waiting", "running")


NOT_KNOWN = Entry("gone")
"""What is said about a job that no scheduler knows."""
