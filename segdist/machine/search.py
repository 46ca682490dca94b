"""The search for the fastest way to train on a node: greedy, in a fixed order, by steps that are timed in turn.

Whoever is fastest so far keeps its processes, and each that challenges it is stepped in turn with it, so that whatever
else the machine does meets both. What is clearly slower is dropped early. The search knows of steps only what
:class:`Bench` tells it, and so it is tested with one that computes nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from segdist.machine.profile import Choices
from segdist.system.cpu import Cpu

Changes = dict[str, Any]
"""Fields of the choices and their other values."""
ROUNDS = 6
"""Steps of each, at the most, in a comparison."""
MARGIN = 0.98
"""A challenger wins where it takes less than this part of the time: less is noise."""
DROP_AT = 1.15
"""A challenger that takes this much longer, after two rounds, is dropped."""


class Runner(Protocol):
    """Processes that do training steps under some choices."""

    peak_memory_mb: float

    def step(self) -> float:
        """Do one step; returns its seconds. Raises RunnerFailed where the processes ended."""

    def close(self) -> None: ...


class RunnerFailed(Exception):
    """A candidate cannot run here; the message says why."""


class Bench(Protocol):
    """Starts runners; RunnerFailed where that takes longer than ``limit_s``.

    ``room_for_more`` says whether the memory holds another one beside those that are alive.
    """

    def start(self, choices: Choices, limit_s: float = ...) -> Runner: ...

    def room_for_more(self, peak_memory_mb: float) -> bool: ...


@dataclass
class Trial:
    """One candidate of a stage: seconds of its steps, and how long it took against the best so far (``ratio``)."""

    stage: str
    choices: Choices
    seconds: list[float] = field(default_factory=list)
    ratio: float | None = None
    peak_memory_mb: float | None = None
    note: str = ""

    def row(self) -> dict[str, Any]:
        """As plain values, for the table and the profile."""
        return {
            "stage": self.stage,
            "choices": self.choices.describe(),
            "step_s": round(statistics.median(self.seconds), 4) if self.seconds else None,
            "steps": len(self.seconds),
            "over_best": round(self.ratio, 3) if self.ratio is not None else None,
            "peak_memory_mb": self.peak_memory_mb,
            "note": self.note,
        }


@dataclass
class Found:
    """What the search ended with: the best choices, its seconds a step, and every trial."""

    choices: Choices
    step_s: float
    trials: list[Trial]
    complete: bool
    runner: Runner | None = None


@dataclass(frozen=True)
class Space:
    """What can be varied on this node: allocators that are installed, IPEX, cores to share, a C++ compiler."""

    cpu: Cpu
    cores: int
    images: int
    allocators: Sequence[str]
    has_ipex: bool
    has_compiler: bool

    def stages(self) -> list[tuple[str, list[Changes], float]]:
        """Name, what is changed of the best so far, one after the other, and the part of the budget that may be gone
        when the stage is over."""
        formats: tuple[Changes, ...] = ({"memory_format": "contiguous"}, {"memory_format": "channels_last"})
        kernels: list[Changes] = [*formats]
        if self.cpu.has_bf16:
            pairs: list[Changes] = [{"precision": "bf16", "ipex": False}, {"precision": "fp32", "ipex": False}]
            pairs[1:1] = [{"precision": "bf16", "ipex": True}] * self.has_ipex
            kernels = [pair | one for pair in pairs for one in formats]
        splits: list[Changes] = [{"wait": "active"}]
        for ranks in (2, 4, 8):
            if ranks <= min(self.cores, self.images) and self.cores % ranks == 0 and self.images % ranks == 0:
                splits.append({"ranks": ranks})
        return [
            ("memory format, precision, IPEX", kernels, 0.45),
            ("allocator", [{"allocator": name} for name in self.allocators], 0.65),
            ("waiting, ranks and threads", splits, 0.85),
            ("bucket size", [{"bucket_mb": size} for size in (5, 100)], 0.92),
            ("torch.compile", [{"compile": True}] * self.has_compiler, 1.0),
        ]


class Search:
    """One search; ``log`` is told of each comparison, ``clock`` gives seconds."""

    def __init__(
        self, bench: Bench, budget_s: float, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bench = bench
        self.log = log
        self.trials: list[Trial] = []
        self._clock = clock
        self._budget = budget_s
        self._begin = clock()
        self._start_s = 0.0  # what it takes to start a candidate and warm it up
        self._complete = True

    def run(self, first: Choices, space: Space) -> Found:
        """Search from ``first`` on.

        Raises:
            RunnerFailed: where the first choices cannot run at all.
        """
        best = Trial("first", first)
        runner = self.bench.start(first)
        self._start_s = self._clock() - self._begin
        best.seconds.append(runner.step())
        best.peak_memory_mb = runner.peak_memory_mb
        self.trials.append(best)
        self.log(f"{first.describe()}: {best.seconds[0]:.3f} s a step")
        for stage, challengers, part in space.stages():
            for changes in challengers:
                choices = dataclasses.replace(best.choices, **changes)
                if choices == best.choices or (stage == "bucket size" and choices.ranks == 1):
                    continue
                end = self._begin + part * self._budget
                if self._clock() + self._start_s + 4 * min(best.seconds) >= end:
                    self._complete = False
                    self.trials.append(Trial(stage, choices, note="not tried: the budget was over"))
                    continue
                best, runner = self._challenge(stage, choices, best, runner, end)
        return Found(best.choices, statistics.median(best.seconds), self.trials, self._complete, runner)

    def _challenge(self, stage: str, choices: Choices, best: Trial, runner: Runner, end: float) -> tuple[Trial, Runner]:
        """Step a challenger in turn with the best so far; returns whichever is faster, the other's processes ended."""
        trial = Trial(stage, choices)
        self.trials.append(trial)
        if not self.bench.room_for_more(runner.peak_memory_mb):
            trial.note = "not tried: the memory does not hold two of them"
            return best, runner
        try:
            other = self.bench.start(choices, end - self._clock())
        except RunnerFailed as failure:
            trial.note = f"cannot run: {failure}"
            self.log(f"{choices.describe()}: {trial.note}")
            return best, runner
        try:
            ratios = self._compare(trial, other, best, runner, end)
        except RunnerFailed as failure:
            trial.note = f"failed: {failure}"
            self.log(f"{choices.describe()}: {trial.note}")
            other.close()
            return best, runner
        trial.ratio, trial.peak_memory_mb = statistics.median(ratios), other.peak_memory_mb
        self.log(
            f"{choices.describe()}: {statistics.median(trial.seconds):.3f} s a step, "
            f"{1 / trial.ratio:.2f}x as fast as {best.choices.describe()}"
        )
        if trial.ratio >= MARGIN:
            other.close()
            return best, runner
        runner.close()
        return trial, other

    def _compare(self, trial: Trial, other: Runner, best: Trial, runner: Runner, end: float) -> list[float]:
        ratios: list[float] = []
        for number in range(ROUNDS):
            ours, theirs = runner.step(), other.step()
            best.seconds.append(ours)
            trial.seconds.append(theirs)
            ratios.append(theirs / ours)
            late = self._clock() + ours + theirs > end
            if late or (number == 0 and ratios[0] > 1.5) or (number >= 1 and min(ratios) > DROP_AT):
                break
        return ratios
