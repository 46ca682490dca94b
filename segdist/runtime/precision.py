"""In which arithmetic the net is trained, and why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import nn

from segdist.runtime.ipex import Ipex, optimize_training, supports_bf16_prepack
from segdist.system.cpu import Cpu


@dataclass(frozen=True)
class Precision:
    """``name`` is fp32 or bf16; ``with_ipex`` says that ``ipex.optimize`` prepares the net."""

    name: str
    with_ipex: bool
    reason: str
    warning: str | None = None

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.name == "bf16":
            return torch.autocast("cpu", torch.bfloat16)
        return contextlib.nullcontext()

    def prepare(
        self, ipex: Ipex, net: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Net and optimizer as this precision wants them."""
        if not self.with_ipex:
            return net, optimizer
        return optimize_training(ipex, net, optimizer, torch.bfloat16 if self.name == "bf16" else torch.float32)


def wants_bf16(wanted: str, cpu: Cpu) -> bool:
    """Whether ``--precision`` comes out as bf16: asked for, or "auto" on a CPU that multiplies it in hardware."""
    return wanted == "bf16" or (wanted == "auto" and cpu.has_bf16)


def choose_precision(wanted: str, cpu: Cpu, ipex: Ipex) -> Precision:
    """Decide fp32 or bf16 from the instruction set; never by trying.

    "auto" takes bf16 where the CPU multiplies it in hardware (AVX512_BF16 or AMX). bf16 asked for without that runs
    through plain autocast, right but slow, and says so.
    """
    loaded = ipex.module is not None
    if not wants_bf16(wanted, cpu):
        why = "asked for" if wanted == "fp32" else f"the CPU's {cpu.isa} has no bf16 arithmetic"
        return Precision("fp32", loaded, f"{why}; ipex.optimize" if loaded else why)
    if not cpu.has_bf16:
        warning = (
            f"--precision bf16 on {cpu.isa}: this CPU has no AVX512_BF16 or AMX, so bf16 is emulated and many times "
            "slower than fp32; --precision auto takes fp32 here"
        )
        return Precision("bf16", False, "asked for; emulated by plain autocast", warning)
    why = "asked for" if wanted == "bf16" else f"the CPU has {cpu.isa}"
    if supports_bf16_prepack(ipex):
        return Precision("bf16", True, f"{why}; ipex.optimize")
    return Precision("bf16", False, f"{why}; plain autocast")
