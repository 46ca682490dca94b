"""What every task needs to know about where it runs: ranks, cores, collectives, CPU, and where its files go."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil
import torch

from segdist.config import ConfigError, RuntimeConfig, TaskConfig
from segdist.results import StepFolder
from segdist.runtime.collectives import Collectives
from segdist.runtime.cpu import Cpu, read_cpu
from segdist.runtime.ranks import Ranks

T = TypeVar("T")


class GoalMissed(Exception):
    """The work is done and its files are there, but the goal was missed; ``metrics`` says by how much."""

    def __init__(self, message: str, metrics: dict[str, Any]) -> None:
        super().__init__(message)
        self.metrics = metrics


@dataclass
class Session:
    """One rank's surroundings. ``decisions`` collects, in words, what every "auto" became and why."""

    ranks: Ranks
    cores: Sequence[int]
    cpu: Cpu
    collectives: Collectives
    step: StepFolder
    runtime: RuntimeConfig
    decisions: dict[str, str] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """Whether this is global rank 0, the only one that writes."""
        return self.ranks.rank == 0

    def log(self, line: str) -> None:
        """Print a line; rank 0 only."""
        if self.is_main:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """Print a warning to stderr; rank 0 only."""
        if self.is_main:
            print(f"warning: {line}", file=sys.stderr, flush=True)

    def decide(self, what: str, choice: str) -> None:
        """Record what an "auto" became, and say it."""
        self.decisions[what] = choice
        self.log(f"{what}: {choice}")

    def on_main(self, work: Callable[[], T]) -> T:
        """Do ``work`` on rank 0 while the others wait, and give its value to all; its ConfigError is raised on all."""
        outcome: tuple[Any, str | None] = (None, None)
        if self.is_main:
            try:
                outcome = (work(), None)
            except ConfigError as error:
                outcome = (None, str(error))
        value, refusal = self.collectives.gather(outcome)[0]
        if refusal is not None:
            raise ConfigError(refusal)
        result: T = value
        return result

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of activations and weights that the config asks for."""
        formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        return formats[self.runtime.memory_format]

    def machine(self) -> dict[str, Any]:
        """Hosts, CPU, instruction set and threads, for ``result.json``."""
        hosts = self.collectives.gather(socket.gethostname())
        return {
            "hosts": sorted(set(hosts)),
            "cpu": self.cpu.model,
            "isa": self.cpu.isa,
            "cores": os.cpu_count(),
            "threads_per_rank": torch.get_num_threads(),
            "ranks": self.ranks.world,
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        }


def open_session(config: TaskConfig, ranks: Ranks, cores: Sequence[int], step: StepFolder) -> Session:
    """Set torch's threads, join the other ranks, and say what was found.

    Raises:
        ConfigError: where what the config asks for is not installed or the ranks cannot meet.
    """
    torch.set_num_threads(len(cores))
    torch.set_num_interop_threads(1)
    runtime = config.runtime
    collectives = Collectives(ranks, runtime.collectives, runtime.interface, runtime.timeout)
    session = Session(ranks, cores, read_cpu(), collectives, step, runtime)
    session.log(
        f"{session.cpu.model}, {session.cpu.isa}; {_count(ranks.world, 'rank')}, {_count(len(cores), 'thread')} each"
    )
    session.decide("collectives", f"{collectives.backend} ({collectives.reason})")
    return session


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
