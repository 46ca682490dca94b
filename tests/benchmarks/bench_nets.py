"""Ratios of one run, printed: eager, traced and int8 inference; nothing is asserted about wall-clock time.

Run with ``make bench``. The machine may be shared, so the variants are timed in turn, pass by pass.
"""

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch

from segdist.models.build import build_net
from segdist.quantization import inc as int8
from segdist.system.cpu import read_cpu

PASSES = 15


def in_turn(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each variant, timed in turn after two passes of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(PASSES + 2):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if number >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


@pytest.mark.parametrize("size", [(128, 256), (256, 512)])
@pytest.mark.parametrize(("model", "width"), [("unet", 16), ("hrnetv2_w18", 18)])
def bench_inference(model: str, width: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = build_net(model, 13, width).eval()
    inputs = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
    contiguous = inputs.contiguous()
    last = build_net(model, 13, width).eval().to(memory_format=torch.channels_last)
    quantized = int8.quantize(net, [inputs], lambda _: 0.5, inputs, max_trials=1, log=lambda _: None).module
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(last, inputs))
        found = in_turn(
            {
                "eager": lambda: net(contiguous),
                "eager, channels_last": lambda: last(inputs),
                "traced": lambda: traced(inputs),
                "int8": lambda: quantized(inputs),
            }
        )
    print(f"\n{model} {size[0]}x{size[1]}, {torch.get_num_threads()} threads, {read_cpu().isa}: speed over eager")
    for name, seconds in found.items():
        print(f"  {name:22}{found['eager'] / seconds:6.2f}x  ({1000 * seconds:.1f} ms)")
