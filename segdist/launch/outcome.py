"""One rank before it is started, how it ended, and how all of them did: plain data."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segdist.system.ranks import Ranks


@dataclass(frozen=True)
class RankSpec:
    """One rank before it is started: who it is, command, additions to the environment, its node's cores."""

    ranks: Ranks
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cores: tuple[int, ...]
    log: Path

    @property
    def rank(self) -> int:
        """Its number over all nodes."""
        return self.ranks.rank


def signal_name(number: int) -> str:
    """``9`` is ``"SIGKILL"``; a real-time signal without a name is ``"signal 40"``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended: by itself with ``exit_code``, or by ``signal``.

    ``late_after`` is the signal that asked the whole job to end, where the launcher killed the rank for not
    heeding it.
    """

    spec: RankSpec
    exit_code: int = 0
    signal: int | None = None
    late_after: int | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended in any way but with exit code 0."""
        return self.signal is not None or self.exit_code != 0

    def __str__(self) -> str:
        if self.signal is None:
            return f"rank {self.spec.rank} ended with exit code {self.exit_code}"
        return f"rank {self.spec.rank} was killed by {signal_name(self.signal)}"


@dataclass
class Outcome:
    """How the ranks ended, in that order, and the signal that stopped the job before any failed.

    ``said`` is the last error of what starts the ranks, where it named none of them. ``lost_nodes`` are those that went
    silent before any rank had failed, so that what the ranks say is not the cause; ``why_lost`` is how that was
    noticed. ``not_started`` says why no agent came up on a node.
    """

    ends: list[RankEnd] = field(default_factory=list)
    stopped_by: int | None = None
    said: str = ""
    lost_nodes: tuple[str, ...] = ()
    why_lost: str = ""
    not_started: str = ""

    @property
    def failure(self) -> RankEnd | None:
        """The rank that failed first, or None where all ended with exit code 0."""
        return next((end for end in self.ends if end.failed), None)

    @property
    def exit_code(self) -> int:
        """0, or the first failing rank's exit code, or 128 + the signal that it died of or did not heed."""
        failure = self.failure
        if failure is None:
            return 0
        if failure.signal is None:
            return failure.exit_code
        return 128 + (failure.late_after or failure.signal)

    def __str__(self) -> str:
        text = str(self.failure or "every rank ended with exit code 0")
        if self.lost_nodes:
            text = f"{' and '.join(self.lost_nodes)} was lost ({self.why_lost})"
        if self.stopped_by is not None:
            text += f" after the launcher was sent {signal_name(self.stopped_by)}"
        if self.failure is not None and self.failure.late_after is not None:
            text += ", which the rank did not heed in time"
        return text
