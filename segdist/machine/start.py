"""How a rank's process starts: its choices, and the allocator and waiting policy that must be there before torch is."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segdist.config import ConfigError, RuntimeConfig, TaskConfig, TrainConfig, TuneConfig
from segdist.machine.choices import Basis, as_asked, differences, find_basis, read_first_choices
from segdist.machine.profile import Choices, Work
from segdist.run.folder import StepFolder
from segdist.run.start_mode import choose_start_mode
from segdist.system.affinity import physical_cores
from segdist.system.allocator import Allocator, choose_allocator
from segdist.system.cpu import Cpu, read_cpu
from segdist.system.ranks import Ranks

MARK = "SEGDIST_ALLOCATOR"
"""Set to ``PID:NAME:REASON`` in a process that was started anew to have an allocator, so that it is not again."""


@dataclass(frozen=True)
class Start:
    """What a rank takes, where the choices come from, and what could not be had (``notes``).

    ``first`` are those of the run's first start, where this one goes on; ``is_measured``: there is a profile.
    """

    choices: Choices
    source: str
    allocator: Allocator
    notes: tuple[str, ...] = ()
    first: Choices | None = None
    is_measured: bool = False

    def environment(self) -> dict[str, str]:
        """Variables for this process, where they are not set yet."""
        return {"OMP_WAIT_POLICY": self.choices.wait.upper()}


PLAIN = Start(Choices("channels_last"), "the library's own", Allocator("glibc", "as this process was started"))
"""Of a process that nobody prepared: a program that uses the rooms, a test."""


def prepare_start(config: TaskConfig, ranks: Ranks, step: StepFolder, environ: Mapping[str, str]) -> Start:
    """Decide what this rank takes; nothing heavy is imported.

    Raises:
        ConfigError: for an allocator that is not installed, or a profile that is none.
    """
    cpu, runtime = read_cpu(), config.runtime
    has_ipex = importlib.util.find_spec("intel_extension_for_pytorch") is not None
    notes: list[str] = []
    if isinstance(config, TrainConfig):
        images = max(1, config.training.batch * ranks.local_world // ranks.world)
        work = Work.of(config.net, config.training.crop, images)
        cores = len(physical_cores(os.sched_getaffinity(0)))
        basis = find_basis(runtime, config.net, cpu, cores, work, has_ipex)
        first = _first_choices(step, config, environ)
        asked = as_asked(first or basis.choices, runtime, config.training)
        source = "as the run's first start" if first else basis.source
        choices = _possible(asked, runtime, cpu, has_ipex, notes)
        if first is not None:
            changed = differences(first, choices)
            notes += [
                f"{name} was {then} at the run's first start and is {now}" for name, (then, now) in changed.items()
            ]
        if basis.profile is not None and basis.profile.choices.ranks != ranks.local_world and first is None:
            notes.append(_other_split(basis, ranks))
    else:
        first, source = None, "default"
        choices = as_asked(Choices("channels_last"), runtime)
        basis = Basis(choices, source)
    known = None if isinstance(config, TuneConfig) or not (basis.profile or first) else choices.allocator
    try:
        allocator = _restarted_with(environ) or choose_allocator(runtime.allocator, environ, known=known)
    except LookupError as missing:
        raise ConfigError(str(missing)) from missing
    if known is not None and allocator.name != choices.allocator:
        notes.append(f"allocator {allocator.name}: {allocator.reason}")
    chosen = dataclasses.replace(choices, allocator=allocator.name)
    return Start(chosen, source, allocator, tuple(notes), first, is_measured=basis.profile is not None)


def _first_choices(step: StepFolder, config: TrainConfig, environ: Mapping[str, str]) -> Choices | None:
    if config.runtime.tuned not in ("auto",):
        return None
    return read_first_choices(step.choices_json) if choose_start_mode(step, config, environ) == "resume" else None


def _possible(choices: Choices, runtime: RuntimeConfig, cpu: Cpu, has_ipex: bool, notes: list[str]) -> Choices:
    """The choices that this node can have; what was asked for by name is left to who refuses it."""
    if choices.precision == "bf16" and not cpu.has_bf16 and runtime.precision == "auto":
        notes.append(f"precision fp32: {cpu.isa} has no bf16 arithmetic")
        choices = dataclasses.replace(choices, precision="fp32", ipex=False)
    if choices.ipex and not has_ipex and runtime.ipex == "auto":
        notes.append("ipex off: intel-extension-for-pytorch is not installed")
        choices = dataclasses.replace(choices, ipex=False)
    return choices


def _other_split(basis: Basis, ranks: Ranks) -> str:
    best = basis.choices.ranks
    return (
        f"{best} ranks on a node were measured to be fastest, and there are {ranks.local_world}; "
        f"--ranks-per-node {best} takes them (each then normalizes over its own part of a batch)"
    )


def _restarted_with(environ: Mapping[str, str]) -> Allocator | None:
    """The allocator that this very process was started anew for; a child that inherits the variables has another id."""
    pid, _, rest = environ.get(MARK, "").partition(":")
    name, _, reason = rest.partition(":")
    return Allocator(name, reason) if pid == str(os.getpid()) and name else None


def needs_restart(start: Start, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables with which this process must be started anew to have its allocator; empty where it has it."""
    allocator = start.allocator
    missing = {name: value for name, value in allocator.environment.items() if environ.get(name) != value}
    return {**missing, MARK: f"{os.getpid()}:{allocator.name}:{allocator.reason}"} if missing else {}


def restart_process(variables: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Become the same program again with more variables; process id, cores, signal mask and open files stay."""
    os.environ.update(variables)
    os.execv(arguments[0], list(arguments))
