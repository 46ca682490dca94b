"""How long one image takes."""

from __future__ import annotations

import time

import numpy as np
import torch

from segdist.models.inference import Net, predict_logits


def measure_latency(net: Net, size: tuple[int, int], runs: int, warmup: int) -> dict[str, float]:
    """Time single images from normalized input to logits at the input's size (batch 1, this rank's threads).

    Args:
        net: in eval mode.
        size: height and width of the input in pixels.
        runs: timed passes.
        warmup: untimed passes before them.

    Returns:
        ``latency_ms_p50``, ``_p95``, ``_p99`` and ``_mean`` in milliseconds, and ``images_per_s`` (of the mean).
    """
    inputs = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 4 - 2
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(warmup):
            predict_logits(net, inputs, size)
        for _ in range(runs):
            start = time.perf_counter()
            predict_logits(net, inputs, size)
            times.append(1000 * (time.perf_counter() - start))
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    mean = float(np.mean(times))
    named = {"p50": float(p50), "p95": float(p95), "p99": float(p99), "mean": mean}
    return {
        **{f"latency_ms_{name}": round(value, 3) for name, value in named.items()},
        "images_per_s": round(1000 / mean, 3),
    }
