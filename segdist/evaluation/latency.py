"""How long one image takes, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch

from segdist.config import EvaluationConfig, parse_size
from segdist.models.forward import Net, predict_logits
from segdist.models.load import LoadedModel
from segdist.runtime.rank_context import RankContext
from segdist.system.memory import peak_memory_mb, reset_peak_memory

Timing = dict[str, Any] | None
"""What a forward pass adds: nothing, or after the last one the figures of all."""


def measure_latency(context: RankContext, model: LoadedModel, cfg: EvaluationConfig, size: str) -> dict[str, Any]:
    """Latency of the net as it is (eager), of the same net traced and frozen, and GMACs; for all ranks together.

    One network at a time on rank 0. The other ranks sleep; they hear from it after every pass, so that a slow net
    does not look like a lost one. With a window, the window is what is timed.
    """
    timed = cfg.window or size
    passes = partial(time_forward_passes, size=parse_size(timed), runs=cfg.latency_runs, warmup=cfg.latency_warmup)
    found: dict[str, Any] = {"latency_input": timed}
    found |= _iterate_on_rank0(context, lambda: passes(model.net))
    macs = context.run_on_rank0(lambda: model.macs_at(timed))
    found["gmacs"] = None if macs is None else round(macs / 1e9, 3)
    of_traced = _iterate_on_rank0(context, lambda: chain.from_iterable(passes(net) for net in [model.traced()] if net))
    kept = [name for name in of_traced if name.startswith(("latency_ms", "images_per_s", "peak_memory_mb"))]
    return found | {f"traced_{name}": of_traced[name] for name in kept}


def time_forward_passes(net: Net, size: tuple[int, int], runs: int, warmup: int) -> Iterator[Timing]:
    """Time single images from normalized input to logits at the input's size (batch 1, this rank's threads).

    Each step of the iterator is one pass, so that the ranks that wait can be told that this one is alive.

    Args:
        net: in eval mode.
        size: height and width of the input in pixels.
        runs: timed passes.
        warmup: untimed passes before them.

    Yields:
        None after every pass but the last, then ``latency_ms_p50``, ``_p95``, ``_p99`` and ``_mean`` in milliseconds,
        ``images_per_s`` (of the mean), ``threads``, and ``peak_memory_mb``: the process's, weights and libraries
        included, in 1e6 bytes. Where the kernel lets a process not forget its earlier peak, that counts too, and
        ``peak_memory_since`` says "start" instead of "timing".
    """
    inputs = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    since = "timing" if reset_peak_memory() else "start"
    times: list[float] = []
    for number in range(warmup + runs):
        with torch.inference_mode():  # not over a yield: it would hold for whoever iterates, too
            start = time.perf_counter()
            predict_logits(net, inputs, size)
            took = time.perf_counter() - start
        if number >= warmup:
            times.append(1000 * took)
        if number + 1 < warmup + runs:
            yield None
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    mean = float(np.mean(times))
    named = {"p50": float(p50), "p95": float(p95), "p99": float(p99), "mean": mean}
    yield {
        **{f"latency_ms_{name}": round(value, 3) for name, value in named.items()},
        "images_per_s": round(1000 / mean, 3),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": peak_memory_mb(),
        "peak_memory_since": since,
    }


def _iterate_on_rank0(context: RankContext, begin: Callable[[], Iterable[Timing]]) -> dict[str, Any]:
    """Go through what ``begin`` gives, step by step on rank 0; its last value, on every rank."""
    steps = iter(begin() if context.is_rank0 else ())
    found: dict[str, Any] = {}

    def step() -> tuple[bool, Timing]:
        for value in steps:
            return True, value
        return False, None

    while True:
        more, value = context.run_on_rank0(step)
        if not more:
            return found
        found = value or {}
