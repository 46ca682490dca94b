"""What a training takes of precision, memory format, exchange and compiler, and how it says so."""

from __future__ import annotations

import dataclasses
import os
import shutil

import torch
from torch import nn

from segdist.config import ConfigError, TrainingConfig
from segdist.machine.start import PLAIN
from segdist.run.files import write_json
from segdist.runtime.collectives import link_mbit
from segdist.runtime.ipex import Ipex, load_ipex
from segdist.runtime.precision import Precision, choose_precision, wants_bf16
from segdist.runtime.rank_context import RankContext
from segdist.training.ddp import gradient_types, wants_bf16_exchange, wrap_ddp


def select_precision(context: RankContext) -> tuple[Precision, Ipex]:
    """The arithmetic of the training, IPEX where it is used, and the layout of tensors; all are recorded.

    Rank 0 keeps the choices of a run's first start, for those that go on from it.
    """
    start, runtime = context.start, context.runtime
    choices, known = start.choices, start.source != PLAIN.source and (start.first is not None or start.is_measured)
    wanted = choices.precision if known and runtime.precision == "auto" else runtime.precision
    use_ipex = ("on" if choices.ipex else "off") if known and runtime.ipex == "auto" else runtime.ipex
    ipex = load_ipex(use_ipex, context.cpu, wants_bf16(wanted, context.cpu))
    reason = f"{ipex.reason}; {start.source}" if use_ipex != runtime.ipex else ipex.reason
    context.record_choice("ipex", reason)
    precision = choose_precision(wanted, context.cpu, ipex)
    reason = start.source if wanted != runtime.precision else precision.reason
    context.record_choice("precision", f"{precision.name} ({reason})", precision.warning)
    asked = runtime.memory_format != "auto"
    context.record_choice("memory-format", f"{choices.memory_format} ({'asked for' if asked else start.source})")
    for note in start.notes:
        context.warn(note)
    return precision, ipex


def keep_choices(context: RankContext, precision: Precision) -> None:
    """Write ``choices.json`` (rank 0) where this is a run's first start."""
    path = context.step.choices_json
    if context.is_rank0 and not path.exists():
        context.check_lease()
        choices = dataclasses.replace(
            context.start.choices,
            precision=precision.name,  # type: ignore[arg-type]
            ipex=precision.with_ipex,
            ranks=context.ranks.local_world,
        )
        write_json(path, {"choices": dataclasses.asdict(choices), "source": context.start.source})


def distribute(context: RankContext, net: nn.Module, precision: Precision, cfg: TrainingConfig) -> nn.Module:
    """The net as a step runs it: over all ranks, and compiled where that was chosen; what it takes is recorded."""
    choices, world = context.start.choices, context.ranks.world
    compress = False
    if world > 1:
        nodes = world // context.ranks.local_world
        interface = os.environ.get("GLOO_SOCKET_IFNAME", "")
        compress, why = wants_bf16_exchange(cfg.compress, nodes, link_mbit(interface))
        sent = f"bf16 ({why}; relative error 2e-3 a step)" if compress else gradient_types(net)
        bucket = f"parts of {choices.bucket_mb or 25} MB"
        context.record_choice("gradients", f"each rank gives {sent} to a step's exchange, in {bucket}")
    distributed = wrap_ddp(net, context, precision, choices.bucket_mb, compress)
    if choices.compile:
        require_compiler()
        context.record_choice("compile", "torch.compile; the first step takes up to minutes")
        distributed = torch.compile(distributed, dynamic=False)  # type: ignore[assignment]
    return distributed


def require_compiler() -> None:
    """Refuse torch.compile without the C++ compiler that it calls."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(f"--compile on: {compiler} is not installed; install a C++ compiler, or give --compile off")
