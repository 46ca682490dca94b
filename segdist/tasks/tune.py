"""Time real training steps with each way to run them on this node, and write the node's profile."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Mapping
from typing import Any

import psutil

from segdist.config import TuneConfig
from segdist.machine.choices import as_asked, default_choices
from segdist.machine.profile import Profile, Work, profile_key, profile_path, profiles_folder, write_profile
from segdist.machine.search import Found, RunnerFailed, Search, Space
from segdist.run.result import utc_now
from segdist.runtime.rank_context import RankContext
from segdist.system.allocator import choose_allocator, find_allocator
from segdist.system.cpu import Cpu
from segdist.tuning.bench import StepBench, StepRanks, foreign_load

BUSY = 0.15
"""Above this part of the cores, what others do decides what is measured."""


def tune(context: RankContext, config: TuneConfig) -> dict[str, Any]:
    """Tune as ``config`` says; returns the metrics of ``result.json``.

    Writes the node's profile, whole and in one move, when the search is over.

    Raises:
        ConfigError: with more than one rank: candidates start ranks of their own.
        RuntimeError: where not even the first choices can run.
    """
    context.require_one_rank()
    cfg, cpu, cores = config.tuning, context.cpu, len(context.cores)
    has_ipex = importlib.util.find_spec("intel_extension_for_pytorch") is not None
    work = Work.of(config.net, cfg.crop, cfg.batch)
    key = profile_key(cpu, cores, work)
    path = profile_path(profiles_folder(config.runtime.profiles), key)
    load = foreign_load()
    if busy := busy_text(load):
        context.warn(busy)
    space = search_space(cpu, cores, cfg.batch, has_ipex)
    first = as_asked(default_choices(config.net, cpu, has_ipex), config.runtime)
    if config.runtime.allocator == "auto":
        first = dataclasses.replace(first, allocator=choose_allocator("auto", {}).name)
    context.log(f"tune: {work.name}, {cores} cores, at most {cfg.budget_s:g} s")
    try:
        found = Search(StepBench(config.net, cfg.crop, cfg.batch), cfg.budget_s, context.log).run(first, space)
    except RunnerFailed as failure:
        raise RuntimeError(f"{first.describe()}: {failure}") from failure
    runner = found.runner
    assert isinstance(runner, StepRanks)
    inference = fastest_inference(runner.ask("inference"))
    runner.close()
    if (busy_after := busy_text(foreign_load())) and not busy:
        context.warn(busy_after)
    profile = Profile(
        key,
        found.choices,
        round(found.step_s, 4),
        tuple(trial.row() for trial in found.trials),
        *inference,
        bool(busy or busy_after),
        utc_now(),
        found.complete,
        {"cpu": cpu.model, "isa": cpu.isa, "memory_gb": round(psutil.virtual_memory().total / 1e9, 1)},
    )
    write_profile(path, profile)
    context.log("\n".join(table(found)))
    context.log(f"fastest: {found.choices.describe()}; written to {path}")
    return {
        "model": config.net.model,
        "width": config.net.width,
        "profile": str(path),
        "choices": found.choices.describe(),
        "step_s": profile.step_s,
        "images_per_s": round(cfg.batch / found.step_s, 3),
        "complete": found.complete,
        "busy": profile.busy,
        "trials": list(profile.trials),
    }


def search_space(cpu: Cpu, cores: int, images: int, has_ipex: bool) -> Space:
    """What can be varied here."""
    libraries = [name for name in ("tcmalloc", "jemalloc") if find_allocator(name) is not None]
    has_compiler = shutil.which(os.environ.get("CXX", "g++")) is not None
    return Space(cpu, cores, images, ("tuned", *libraries, "glibc"), has_ipex, has_compiler)


def fastest_inference(passes: Mapping[str, float]) -> tuple[str, bool]:
    """Memory format of the fastest forward pass, and whether it was of the traced net.

    ``passes`` has the seconds of "channels_last", "contiguous", and of both with "traced_" before them.
    """
    names = ("channels_last", "contiguous", "traced_channels_last", "traced_contiguous")
    best = min(names, key=lambda name: float(passes[name]))
    return best.removeprefix("traced_"), best.startswith("traced_")


def busy_text(load: float) -> str:
    """What to say of a machine of whose cores others take this part; empty where it is as good as idle."""
    if load <= BUSY:
        return ""
    return f"other programs take {100 * load:.0f} % of the cores: tune again when the machine is idle"


def table(found: Found) -> list[str]:
    """The trials as lines: seconds a step, time over the best so far, peak memory, what it was."""
    lines = [f"{'s/step':>8} {'time':>6} {'MB':>7}  choices"]
    for trial in found.trials:
        row = trial.row()
        step = "–" if row["step_s"] is None else f"{row['step_s']:.3f}"
        ratio = "–" if row["over_best"] is None else f"{row['over_best']:.2f}"
        memory = "–" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f}"
        note = f" ({row['note']})" if row["note"] else ""
        lines.append(f"{step:>8} {ratio:>6} {memory:>7}  {row['choices']}{note}")
    return lines
