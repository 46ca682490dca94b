"""Intel Extension for PyTorch, probed once and in this place only."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from segdist.config import ConfigError
from segdist.system.cpu import Cpu
from segdist.system.redirect import STDERR, STDOUT, redirect_fd

INSTALL = 'python -m pip install "torch==2.8.0" "intel-extension-for-pytorch==2.8.0"'


@dataclass(frozen=True)
class Ipex:
    """The extension, or None, and one sentence on why."""

    module: ModuleType | None
    reason: str

    @property
    def version(self) -> str | None:
        """The installed version."""
        return getattr(self.module, "__version__", None)


def load_ipex(wanted: str, cpu: Cpu, bf16: bool) -> Ipex:
    """Import IPEX as ``--ipex`` asks: "on" always, "off" never, "auto" where it is likely to help.

    That is for bf16 training. In fp32 importing it was measured to make training slower, up to twice, by kernels that
    it puts in the place of torch's own.

    Args:
        wanted: "auto", "on" or "off".
        cpu: this machine's.
        bf16: whether bf16 training is asked for or likely.

    Raises:
        ConfigError: for "on" where it cannot be imported, with the line that installs it.
    """
    if wanted == "off":
        return Ipex(None, "off, as asked for")
    if wanted == "auto" and not bf16:
        return Ipex(None, "not used: it does not help fp32 training")
    if importlib.util.find_spec("intel_extension_for_pytorch") is None:
        if wanted == "on":
            raise ConfigError(f"--ipex on: intel-extension-for-pytorch is not installed; {INSTALL}")
        return Ipex(None, f"not installed: plain PyTorch runs; to have it: {INSTALL}")
    # Its import prints a screenful that concerns nobody here: overridden kernels, absent CUDA, deprecations.
    with warnings.catch_warnings(), redirect_fd(STDERR), redirect_fd(STDOUT):
        warnings.simplefilter("ignore")
        module = importlib.import_module("intel_extension_for_pytorch")
    logging.getLogger("IPEX").setLevel(logging.ERROR)
    return Ipex(module, f"{module.__version__}")


def supports_bf16_prepack(ipex: Ipex) -> bool:
    """Whether ``ipex.optimize(dtype=bfloat16)`` would pass its own check of the CPU; asked, never tried."""
    return ipex.module is not None and bool(ipex.module._C.onednn_has_bf16_support())


def optimize_training(
    ipex: Ipex, net: nn.Module, optimizer: torch.optim.Optimizer, dtype: torch.dtype
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """``ipex.optimize`` for training in ``dtype``; in bf16 the weights' fp32 rest is kept by the optimizer.

    Weights keep their layout: reordering them at each step cost 1.0 to 1.6 times the whole step, most where the number
    of channels is no multiple of 16 (HRNetV2-W18).
    """
    assert ipex.module is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimized: Any = ipex.module.optimize(net, optimizer=optimizer, dtype=dtype, weights_prepack=False)
    return optimized[0], optimized[1]
