"""How much faster than fp32 a model is, like for like: over the best fp32 of the same input, CPU and threads.

The best fp32 is the faster one of the net as it is (eager) and of the same net traced and frozen. An evaluation times
it in turns with the model itself; where it did not, that of an fp32 evaluation of the same run is taken, if it was
measured on the same CPU with as many threads and the same input. Else there is no speed-up, but the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from segdist.run.result import as_number

LEAST_PASSES_OF_P99 = 100
"""Timed passes without which the 99th percentile is but the slowest one."""


@dataclass(frozen=True)
class Measured:
    """What one evaluation says of one input size: its name and precision, and the values as ``result.json`` has them.

    ``passes`` is how many passes its config asked for, for results that do not say how many were timed.
    """

    name: str
    precision: str
    size: str
    values: Mapping[str, Any]
    machine: Mapping[str, Any]
    passes: int | None = None

    @property
    def eager(self) -> float | None:
        """p50 of the net as it is in ms; an int8 model is frozen, and has no other."""
        return _positive(self.values.get("latency_ms_p50"))

    @property
    def traced(self) -> float | None:
        """p50 of the traced, frozen net in ms."""
        return _positive(self.values.get("traced_latency_ms_p50"))

    @property
    def best(self) -> float | None:
        """The lower of the two."""
        return min((p50 for p50 in (self.eager, self.traced) if p50), default=None)

    @property
    def has_p99(self) -> bool:
        """Whether there were passes enough for a 99th percentile."""
        return (as_number(self.values.get("latency_passes")) or self.passes or 0) >= LEAST_PASSES_OF_P99

    @property
    def p99(self) -> float | None:
        """The 99th percentile in ms, where there were passes enough for it."""
        return as_number(self.values.get("latency_ms_p99")) if self.has_p99 else None

    @property
    def conditions(self) -> tuple[tuple[str, Any], ...]:
        """What must be the same for two latencies to be compared, None where it is not recorded."""
        threads = self.values.get("threads") or self.machine.get("threads_per_rank")
        timed = self.values.get("latency_input") or self.size
        return ("CPU", self.machine.get("cpu")), ("threads", threads), ("input", timed)


@dataclass(frozen=True)
class SpeedUp:
    """p50 of a model and of its base, in ms, and of eager fp32 beside it; ``reason`` says why there is no base.

    ``apart`` names the evaluation that timed the base, where that is another one than the model's.
    """

    own: float | None = None
    base: float | None = None
    base_kind: str = ""
    eager: float | None = None
    reason: str = ""
    apart: str = ""

    @property
    def factor(self) -> float | None:
        """How many times faster than the base; below 1 the model is slower."""
        return self.base / self.own if self.base and self.own else None

    @property
    def over_eager(self) -> float | None:
        """How many times faster than eager fp32."""
        return self.eager / self.own if self.eager and self.own else None

    @property
    def slower(self) -> bool:
        """Whether the model is slower than its base, in the two decimals that are shown."""
        return self.factor is not None and round(self.factor, 2) < 1

    def __str__(self) -> str:
        """``2.78x over traced fp32 (26.7 against 74.2 ms; 3.78x over eager fp32)``, or why there is none."""
        if self.factor is None or self.over_eager is None:
            return f"no speed-up is claimed: {self.reason}"
        said = f"{self.factor:.2f}x{': slower than' if self.slower else ' over'} {self.base_kind}"
        beside = "" if self.base_kind == "eager fp32" else f"; {self.over_eager:.2f}x over eager fp32"
        return f"{said} ({self.own:.1f} against {self.base:.1f} ms{beside})"


def speed_up(own: Measured, evaluations: Iterable[Measured]) -> SpeedUp:
    """The speed-up of a measurement, from itself, or else from the fp32 ones among ``evaluations``."""
    if own.best is None:
        return SpeedUp(reason="it was not timed")
    if own.precision == "fp32":
        return _over(own.best, own.eager, own.traced, "its own file has no traced latency")
    eager, traced = (_positive(own.values.get(f"{name}_latency_ms_p50")) for name in ("fp32", "fp32_traced"))
    if eager and traced:
        return _over(own.best, eager, traced, "")
    reasons = []
    for fp32 in evaluations:
        if fp32.precision != "fp32" or fp32.size != own.size:
            continue
        unequal = [
            f"{what} {theirs or 'not recorded'} against {ours or 'not recorded'}"
            for (what, theirs), (_, ours) in zip(fp32.conditions, own.conditions)
            if theirs is None or theirs != ours
        ]
        if not unequal and fp32.eager and fp32.traced:
            return dataclasses.replace(_over(own.best, fp32.eager, fp32.traced, ""), apart=fp32.name)
        reasons.append(
            f"evaluation {fp32.name} is not comparable: {', '.join(unequal)}"
            if unequal
            else f"evaluation {fp32.name} has no latency of traced fp32"
        )
    said = str(own.values.get("fp32_latency_missing") or "it has no latency of fp32 beside its own")
    return SpeedUp(own.best, reason="; ".join([said, *(reasons or [f"no fp32 evaluation at {own.size}"])]))


def _over(own: float, eager: float | None, traced: float | None, missing: str) -> SpeedUp:
    if eager is None or traced is None:
        return SpeedUp(own, eager=eager, reason=missing)
    kind = "traced fp32" if traced <= eager else "eager fp32"
    return SpeedUp(own, min(eager, traced), kind, eager)


def _positive(value: Any) -> float | None:
    number = as_number(value)
    return number if number and number > 0 else None


def goal_note(own: Measured) -> str:
    """Whether an int8 model keeps its accuracy goal in this evaluation, at its own size; empty for others."""
    values = own.values
    if own.precision != "int8":
        return ""
    if not isinstance(values.get("goal_met"), bool):
        return f"goal not judged: {values.get('goal_missing') or 'this evaluation does not say; evaluate again'}"
    fp32, goal = as_number(values.get("goal_fp32_miou_pct")), as_number(values.get("goal_miou_pct"))
    miou = as_number(values.get("miou_pct"))
    if fp32 is None or goal is None or miou is None:
        return "goal not judged: the numbers are missing; evaluate again"
    met = "met" if values["goal_met"] else "MISSED"
    return f"goal {values.get('goal')} {met}: int8 mIoU {miou:.2f} %, fp32 {fp32:.2f} %, goal {goal:.2f} %"
