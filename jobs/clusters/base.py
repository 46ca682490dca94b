"""What every scheduler does for a run: show the scripts, submit, look, cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

from jobs.resources import Profile, Resources
from jobs.spec import Job, Step
from segdist.results import RunFolder

Phase = Literal["waiting", "running", "ended", "gone", "unknown"]
"""``gone``: the scheduler knows the job no more; ``unknown``: it could not be asked."""


class SubmitError(RuntimeError):
    """The job could not be started. The message says what the scheduler said."""


@dataclass(frozen=True)
class Entry:
    """What a scheduler says about one job: its phase, the scheduler's own word, why it waits or how it ended."""

    phase: Phase
    state: str = ""
    reason: str = ""
    nodes: str = ""
    elapsed_s: float | None = None
    restarts: int = 0

    @property
    def alive(self) -> bool | None:
        """Whether something will still happen; None where that is not known."""
        return None if self.phase == "unknown" else self.phase in ("waiting", "running")


NOWHERE: Mapping[str, str] = MappingProxyType({})
NOT_KNOWN = Entry("gone")
"""What is said about a job that no scheduler knows."""


@dataclass(frozen=True)
class Planned:
    """One run that is to be submitted: its folder, its steps, and where submitit keeps the job's files."""

    run: RunFolder
    steps: tuple[Step, ...]
    submitit_folder: str
    cwd: str


class Scheduler(Protocol):
    """A cluster. Several runs that are submitted together have the same steps: they are a sweep."""

    def scripts(self, planned: Sequence[Planned], resources: Resources, profile: Profile) -> Mapping[str, str]:
        """The exact text of each job's script, by step; touches nothing."""

    def submit(self, planned: Sequence[Planned], resources: Resources, profile: Profile) -> Sequence[tuple[Job, ...]]:
        """Submit every step of every run; returns the jobs of each run.

        Raises:
            SubmitError: where the scheduler refuses; what it had taken by then is cancelled.
        """

    def look(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> Mapping[str, Entry]:
        """What is known about those jobs, in one call to the scheduler; all of them are in the answer.

        ``outputs`` says where their batch scripts print, by id: other files of a job are beside that one.
        """

    def cancel(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> None:
        """Ask the scheduler to end those jobs.

        Raises:
            SubmitError: where it refuses.
        """
