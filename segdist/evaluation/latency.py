"""How long one image takes, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from segdist.models.forward import Net, predict_logits
from segdist.system.memory import peak_memory_mb, reset_peak_memory


def time_passes(net: Net, size: tuple[int, int], runs: int, warmup: int) -> Iterator[dict[str, Any] | None]:
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
