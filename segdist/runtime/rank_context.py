"""What every task needs to know about where it runs: ranks, cores, collectives, CPU, and where its files go."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil
import torch

from segdist.config import ConfigError, RuntimeConfig, TaskConfig
from segdist.machine.start import MARK, PLAIN, Start
from segdist.run.files import write_json
from segdist.run.folder import StepFolder
from segdist.run.lease import Lease
from segdist.runtime.collectives import Collectives
from segdist.system.allocator import loaded_allocator
from segdist.system.cpu import Cpu, read_cpu
from segdist.system.plural import count_noun
from segdist.system.quota import cpu_quota
from segdist.system.ranks import Ranks
from segdist.system.signals import StopFlag

T = TypeVar("T")


class GoalMissed(Exception):
    """The work is done and its files are there, but the goal was missed; ``metrics`` says by how much."""

    def __init__(self, message: str, metrics: dict[str, Any]) -> None:
        super().__init__(message)
        self.metrics = metrics


class Preempted(Exception):
    """The work stopped on a signal after everything was saved; the same command goes on from there."""


class Rank0Failed(Exception):
    """Rank 0 failed in what the other ranks waited for; its message is rank 0's error."""


@dataclass
class RankContext:
    """One rank's surroundings. ``decisions`` collects, in words, what every "auto" became and why.

    ``lease`` is rank 0's lease of the step (None on the others), ``stop`` says whether a signal asked to stop.
    ``finish_writing`` waits for what is being written beside the work.
    """

    ranks: Ranks
    cores: Sequence[int]
    cpu: Cpu
    collectives: Collectives
    step: StepFolder
    runtime: RuntimeConfig
    stop: StopFlag = field(default_factory=StopFlag)
    lease: Lease | None = None
    decisions: dict[str, str] = field(default_factory=dict)
    finish_writing: Callable[[], None] = lambda: None
    start: Start = PLAIN

    def require_one_rank(self) -> None:
        """For a task that one process with all the cores does.

        Raises:
            ConfigError: with more ranks.
        """
        if self.ranks.world > 1:
            raise ConfigError(f"{self.step.task} on {self.ranks.world} ranks: it runs on one; start it with one rank")

    @property
    def is_rank0(self) -> bool:
        """Whether this is global rank 0, the only one that writes."""
        return self.ranks.rank == 0

    def log(self, line: str) -> None:
        """Print a line; rank 0 only."""
        if self.is_rank0:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """Print a warning to stderr; rank 0 only."""
        if self.is_rank0:
            print(f"warning: {line}", file=sys.stderr, flush=True)

    def record_choice(self, option: str, choice: str, warning: str | None = None) -> None:
        """Record what an option's "auto" became, and say it; then the warning, where there is one."""
        self.decisions[option] = choice
        self.log(f"{option}: {choice}")
        if warning:
            self.warn(warning)

    def report_progress(self, epoch: int, steps: int, epochs: int) -> Callable[[int, str, float], None]:
        """A callback that writes ``progress.json`` within an epoch (from 0), for those who watch from outside."""

        def write(done: int, note: str, each_s: float) -> None:
            self.check_lease()
            left = (epochs - epoch) * steps - done
            values = {"epoch": round(epoch + done / steps, 3), "note": note, "eta_s": round(left * each_s, 1)}
            write_json(self.step.progress_json, values)

        return write

    def run_on_rank0(self, work: Callable[[], T]) -> T:
        """Do ``work`` on rank 0 while the others wait, and give its value to all.

        Raises:
            ConfigError: on all ranks, where the work raises it.
            Rank0Failed: on the others, where it raises anything else; on rank 0 that error itself.
        """
        outcome: tuple[Any, str | None, bool] = (None, None, False)
        failure: Exception | None = None
        if self.is_rank0:
            try:
                outcome = (work(), None, False)
            except Exception as error:
                failure = error
                outcome = (None, str(error) or type(error).__name__, isinstance(error, ConfigError))
        value, refusal, bad_input = self.collectives.all_gather(outcome)[0]
        if failure is not None:
            raise failure
        if refusal is not None:
            raise ConfigError(refusal) if bad_input else Rank0Failed(refusal)
        result: T = value
        return result

    def heartbeat(self, step: int, activity: str) -> None:
        """Note where this rank is: in step ``step`` (from 0), doing ``activity``; for the watchdog."""
        if self.collectives.watchdog is not None:
            self.collectives.watchdog.heartbeat(step, activity)

    def check_lease(self) -> None:
        """Before a write to the step's folder (rank 0): whether the step is still this job's.

        Raises:
            LeaseLost: where it is not.
        """
        if self.lease is not None:
            self.lease.check()

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of activations and weights."""
        formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        return formats[self.start.choices.memory_format]

    def machine(self) -> dict[str, Any]:
        """Hosts, CPU, instruction set and threads, for ``result.json``."""
        hosts = self.collectives.all_gather(socket.gethostname())
        return {
            "hosts": sorted(set(hosts)),
            "cpu": self.cpu.model,
            "isa": self.cpu.isa,
            "cores": os.cpu_count(),
            "threads_per_rank": torch.get_num_threads(),
            "ranks": self.ranks.world,
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        }


def open_rank_context(
    config: TaskConfig,
    ranks: Ranks,
    cores: Sequence[int],
    step: StepFolder,
    stop: StopFlag | None = None,
    start: Start = PLAIN,
) -> RankContext:
    """Set torch's threads, join the other ranks, and say what was found.

    Raises:
        ConfigError: where what the config asks for is not installed or the address is missing.
        RanksMissing: where not all ranks come.
    """
    torch.set_num_threads(len(cores))
    torch.set_num_interop_threads(1)
    runtime = config.runtime
    collectives = Collectives(
        ranks, runtime.collectives, runtime.interface, runtime.timeout, runtime.rendezvous_timeout
    )
    context = RankContext(ranks, cores, read_cpu(), collectives, step, runtime, StopFlag() if stop is None else stop)
    # The ranks of a training must agree, and nodes may differ: what rank 0 found is what all take.
    context.start = dataclasses.replace(start, choices=collectives.all_gather(start.choices)[0])
    size = f"{count_noun(ranks.world, 'rank')}, {count_noun(len(cores), 'thread')} each"
    context.log(f"{context.cpu.model}, {context.cpu.isa}; {size}")
    quota = cpu_quota()
    if quota is not None and len(cores) < len(os.sched_getaffinity(0)):
        context.record_choice("threads", f"{len(cores)}, of a quota of {quota.cpus:g} CPUs ({quota.source})")
    context.record_choice("collectives", f"{collectives.backend} ({collectives.reason})")
    _record_start(context)
    return context


def _record_start(context: RankContext) -> None:
    """Record the allocator that is really there, and how threads wait."""
    allocator, loaded = context.start.allocator, loaded_allocator(os.environ)
    warning = None
    if loaded != allocator.name and MARK in os.environ:
        warning = f"allocator {allocator.name}: was to be loaded, and {loaded} is here"
    reason = allocator.reason if loaded == allocator.name else "as this process was started"
    context.record_choice("allocator", f"{loaded} ({reason})", warning)
    context.record_choice("wait-policy", os.environ.get("OMP_WAIT_POLICY", "as OpenMP does by itself").lower())
