"""The product's training step against the best of plain PyTorch, as ratios of one run; nothing is asserted.

Run with ``make bench``; ``BENCH=full`` adds torch.compile of HRNet, which takes minutes for its first step. All step in
turn, in processes of their own, those that are not timed stopped.
"""

import dataclasses
import importlib.util
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from segdist.config import NetConfig
from segdist.machine.choices import default_choices
from segdist.machine.profile import Choices
from segdist.machine.search import RunnerFailed, Search, Space
from segdist.models.build import build_net, count_macs
from segdist.system.affinity import physical_cores
from segdist.system.allocator import choose_allocator, find_allocator
from segdist.system.cpu import read_cpu
from segdist.tuning.bench import StepBench

CROP, IMAGES, ROUNDS = "256x512", 2, 7
NETS = [NetConfig("unet", 32), NetConfig("hrnetv2_w18")]
HAS_IPEX = importlib.util.find_spec("intel_extension_for_pytorch") is not None


def plain_candidates(net: NetConfig) -> dict[str, Choices]:
    """What the docs of PyTorch and IPEX would have a user run, on glibc's malloc as it is."""
    base = Choices("contiguous", allocator="glibc")
    bf16 = read_cpu().has_bf16
    last = dataclasses.replace(base, memory_format="channels_last")
    found = {"eager, contiguous": base, "eager, channels_last": last}
    if bf16:
        found["autocast bf16"] = dataclasses.replace(last, precision="bf16")
    if HAS_IPEX:
        precision = "bf16" if bf16 else "fp32"
        found["ipex.optimize"] = dataclasses.replace(
            base, memory_format="channels_last", precision=precision, ipex=True
        )
    if net.model == "unet" or os.environ.get("BENCH") == "full":
        found["torch.compile"] = dataclasses.replace(base, precision="bf16" if bf16 else "fp32", compile=True)
    return found


def in_turn(runners):
    """Median seconds a step, all stepped in turn."""
    seconds = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            seconds[name].append(runner.step())
    return {name: statistics.median(values) for name, values in seconds.items()}


def gflops_of_matrices(precision: str) -> float:
    """The peak of matrix products in that precision on all cores."""
    a = torch.randn(4096, 4096).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    best = min(_timed(lambda: a @ a) for _ in range(8))
    return 2 * 4096**3 / best / 1e9


def _timed(work):
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.model)
def bench_training_step(net: NetConfig) -> None:
    cpu, cores = read_cpu(), len(physical_cores(os.sched_getaffinity(0)))
    bench = StepBench(net, CROP, IMAGES)
    libraries = [name for name in ("tcmalloc", "jemalloc") if find_allocator(name) is not None]
    default = dataclasses.replace(default_choices(net, cpu, HAS_IPEX), allocator=choose_allocator("auto", {}).name)
    space = Space(cpu, cores, IMAGES, ("tuned", *libraries, "glibc"), HAS_IPEX, has_compiler=True)
    found = Search(bench, float(os.environ.get("BENCH_BUDGET_S", "180")), print).run(default, space)
    assert found.runner is not None
    runners = {"ours, tuned": found.runner}
    for name, choices in {"ours, default": default, **plain_candidates(net)}.items():
        try:
            runners[name] = bench.start(choices)
        except RunnerFailed as failure:
            print(f"{name}: {failure}")
    try:
        seconds = in_turn(runners)
    finally:
        for runner in runners.values():
            runner.close()
    plain = {name: value for name, value in seconds.items() if not name.startswith("ours")}
    best = min(plain, key=lambda name: plain[name])
    ours = seconds["ours, tuned"]
    macs = count_macs(build_net(net.model, 13, net.width), (256, 512))
    rate, peak = 6 * macs * IMAGES / ours / 1e9, gflops_of_matrices(found.choices.precision)
    print(f"\n{net.model}, {IMAGES} x {CROP}, {cores} cores, {cpu.model} ({cpu.isa}): seconds a step, speed of ours")
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"  {name:22}{value:8.3f} s{value / ours:8.2f}x")
    print(f"  tuned: {found.choices.describe()}; best of plain: {best} ({plain[best] / ours:.2f}x)")
    print(
        f"  {rate:.0f} GFLOP/s in convolutions, {100 * rate / peak:.0f} % of {found.choices.precision} matrix products "
        f"({peak:.0f} GFLOP/s)"
    )


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.model)
def bench_two_ranks_of_one_core(net: NetConfig) -> None:
    """Two ranks of one core each, over two independent trainings side by side on the same cores."""
    cores = physical_cores(os.sched_getaffinity(0))[:2]
    choices = dataclasses.replace(default_choices(net, read_cpu(), False), allocator=choose_allocator("auto", {}).name)
    both, alone = StepBench(net, "128x256", 2), StepBench(net, "128x256", 1)
    allowed = os.sched_getaffinity(0)
    runners = []
    try:
        for core in cores:
            os.sched_setaffinity(0, [core])
            runners.append(alone.start(choices))
    finally:
        os.sched_setaffinity(0, allowed)
    together = both.start(dataclasses.replace(choices, ranks=2))
    pair, ddp, waits = [], [], []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(ROUNDS):
            pair.append(max(pool.map(lambda runner: runner.step(), runners)))
            answer = together.ask("step")
            ddp.append(answer["seconds"])
            waits.append(answer["waited_for_sums"])
    for runner in (*runners, together):
        runner.close()
    ratio = statistics.median(pair) / statistics.median(ddp)
    share = 100 * statistics.median(waits) / statistics.median(ddp)
    print(f"\n{net.model}, 2 ranks x 1 core, 1 x 128x256 each: {ratio:.2f} of two independent trainings side by side")
    print(f"  waiting for the sums of loss and flags: {share:.2f} % of a step")


def bench_sums_of_four_ranks() -> None:
    """The share of a step that rank 0 waits for the sums, with four ranks on this machine's cores."""
    runner = StepBench(NETS[0], "128x256", 4).start(Choices("contiguous", allocator="tuned", ranks=4))
    answers = [runner.ask("step") for _ in range(ROUNDS)]
    runner.close()
    share = statistics.median(one["waited_for_sums"] / one["seconds"] for one in answers)
    print(f"\n4 ranks: waiting for the sums of loss and flags: {100 * share:.2f} % of a step")
