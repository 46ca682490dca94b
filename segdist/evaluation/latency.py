"""How long one image takes, and how much memory; a model and its fp32 base are timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segdist.config import ConfigError, EvaluationConfig, parse_size
from segdist.models.forward import Net, predict_logits
from segdist.models.load import LoadedModel
from segdist.run.speedup import LEAST_PASSES_OF_P99
from segdist.runtime.rank_context import RankContext
from segdist.system.memory import peak_memory_mb, reset_peak_memory

TURN = 5
"""Passes of one net before it is another one's turn: so few that what slows the machine down slows all of them."""

OpenBase = Callable[[], LoadedModel]
"""Gives the fp32 net that a model is held against, or raises ConfigError with the reason why there is none."""
Timings = dict[str, Any] | None
"""What a forward pass adds: nothing, or after the last one the figures of all."""


@dataclass
class TimedNet:
    """A net, what its figures' names begin with, and the figures so far."""

    prefix: str
    net: Net
    times: list[float] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)

    def one_pass(self, inputs: Tensor) -> float:
        """Run it once; milliseconds."""
        with torch.inference_mode():  # not over a yield: it would hold for whoever iterates, too
            start = time.perf_counter()
            predict_logits(self.net, inputs, (inputs.shape[2], inputs.shape[3]))
            return 1000 * (time.perf_counter() - start)

    def figures(self) -> dict[str, Any]:
        """The figures by their names in ``result.json``."""
        p50, p95, p99 = (round(float(value), 3) for value in np.percentile(self.times, [50, 95, 99]))
        mean = float(np.mean(self.times))
        found: dict[str, Any] = {"latency_ms_p50": p50, "latency_ms_p95": p95}
        found["latency_ms_p99"] = p99 if len(self.times) >= LEAST_PASSES_OF_P99 else None
        found |= {"latency_ms_mean": round(mean, 3), "images_per_s": round(1000 / mean, 3), **self.memory}
        return {f"{self.prefix}{name}": value for name, value in found.items()}


def measure_latency(
    context: RankContext, model: LoadedModel, cfg: EvaluationConfig, size: str, base: OpenBase
) -> dict[str, Any]:
    """Latency of the net as it is (eager), of the same net traced and frozen, and GMACs; for all ranks together.

    A model that is not fp32 is timed in turns with its fp32 ``base``, eager and traced, whose figures' names begin with
    ``fp32_``. One network at a time on rank 0. The other ranks sleep; they hear from it after every pass, so that a
    slow net does not look like a lost one. With a window, the window is what is timed.

    Args:
        context: of all ranks.
        model: what is timed.
        cfg: how many passes.
        size: input size.
        base: opens the fp32 net; not called where the model itself is fp32.
    """
    timed = cfg.window or size
    found: dict[str, Any] = {"latency_input": timed}
    missing: list[str] = []
    nets = nets_to_time(model, base, missing)
    passes = _iterate_on_rank0(context, lambda: time_forward_passes(nets, cfg, parse_size(timed)))
    macs = context.run_on_rank0(lambda: model.macs_at(timed))
    found |= passes | {"gmacs": None if macs is None else round(macs / 1e9, 3)}
    if cfg.latency_runs < LEAST_PASSES_OF_P99:
        found["latency_p99_missing"] = (
            f"p99 needs at least {LEAST_PASSES_OF_P99} passes, there were {cfg.latency_runs}; "
            f"give --latency-runs {LEAST_PASSES_OF_P99}"
        )
    for reason in context.run_on_rank0(lambda: missing):
        found["fp32_latency_missing"] = reason
    return found


def nets_to_time(model: LoadedModel, base: OpenBase, missing: list[str]) -> Iterator[TimedNet]:
    """The model, the same traced, and its fp32 base likewise; why there is no base goes to ``missing``.

    Each is made when it is asked for, so that it takes no memory while those before it warm up.
    """
    yield TimedNet("", model.net)
    if traced := model.traced():
        yield TimedNet("traced_", traced)
    if model.precision == "fp32":
        return
    try:
        fp32 = base()
    except ConfigError as error:
        missing.append(str(error))
        return
    yield TimedNet("fp32_", fp32.net)
    if traced := fp32.traced():
        yield TimedNet("fp32_traced_", traced)


def time_forward_passes(nets: Iterable[TimedNet], cfg: EvaluationConfig, size: tuple[int, int]) -> Iterator[Timings]:
    """Time single images from normalized input to logits at the input's size (batch 1, this rank's threads).

    First each net warms up and its peak memory is read; then they are timed in turns. Each step of the iterator is one
    pass, so that the ranks that wait can be told that this one is alive.

    Args:
        nets: in eval mode.
        cfg: how many passes.
        size: height and width of the input in pixels.

    Yields:
        None after every pass, and at the end for each net ``latency_ms_p50``, ``_p95``, ``_p99`` (None with fewer than
        100 passes) and ``_mean`` in milliseconds, ``images_per_s`` (of the mean) and ``peak_memory_mb``: the process's,
        weights and libraries included, in 1e6 bytes. Where the kernel lets a process not forget its earlier peak,
        that counts too, and ``peak_memory_since`` says "start" instead of "timing". ``threads`` and
        ``latency_passes`` hold for all.
    """
    inputs = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    timed = []
    for one in nets:
        timed.append(one)
        since = "timing" if reset_peak_memory() else "start"
        for _ in range(max(cfg.latency_warmup, 1)):  # one pass is needed to know the memory
            one.one_pass(inputs)
            yield None
        one.memory = {"peak_memory_mb": peak_memory_mb(), "peak_memory_since": since}
    for begin in range(0, cfg.latency_runs, TURN):
        for one in timed:
            for _ in range(begin, min(begin + TURN, cfg.latency_runs)):
                one.times.append(one.one_pass(inputs))
                yield None
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "latency_passes": cfg.latency_runs}
    for one in timed:
        found |= one.figures()
    yield found


def _iterate_on_rank0(context: RankContext, begin: Callable[[], Iterable[Timings]]) -> dict[str, Any]:
    """Go through what ``begin`` gives, step by step on rank 0; its last value, on every rank."""
    steps = iter(begin() if context.is_rank0 else ())
    found: dict[str, Any] = {}

    def step() -> tuple[bool, Timings]:
        for value in steps:
            return True, value
        return False, None

    while True:
        more, value = context.run_on_rank0(step)
        if not more:
            return found
        found = value or {}
