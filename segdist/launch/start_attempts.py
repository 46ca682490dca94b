"""Ranks on other nodes through the first starter that starts them: one that is there may still not work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segdist.launch.console import log_line
from segdist.launch.outcome import Outcome, RankSpec
from segdist.launch.remote import Timeouts, run_remote


def run_with_starters(
    specs: Sequence[RankSpec],
    hosts: Sequence[str],
    starters: Sequence[str],
    grace: float,
    folder: Path,
    timeouts: Timeouts | None = None,
) -> Outcome:
    """:func:`~segdist.launch.remote.run_remote` with each starter in turn, until one gets an agent onto every node.

    Ranks that began through one that failed elsewhere are ended first: without the others they only wait.
    """
    for starter, following in zip(starters, [*starters[1:], None]):
        outcome = run_remote(specs, hosts, starter, grace, folder, timeouts or Timeouts())
        if following is None or not outcome.not_started or outcome.stopped_by is not None:
            return outcome
        log_line(f"{starter} failed to start ranks ({outcome.not_started}); trying {following}")
    raise ValueError("no starter was given")
