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
from segdist.runtime.quiet import STDERR, held_back

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


def load_ipex(wanted: str) -> Ipex:
    """Import IPEX as ``--ipex`` asks: "auto" where it is installed, "on" always, "off" never.

    Raises:
        ConfigError: for "on" where it cannot be imported, with the line that installs it.
    """
    if wanted == "off":
        return Ipex(None, "off, as asked for")
    if importlib.util.find_spec("intel_extension_for_pytorch") is None:
        if wanted == "on":
            raise ConfigError(f"--ipex on: intel-extension-for-pytorch is not installed; {INSTALL}")
        return Ipex(None, f"not installed: plain PyTorch runs; to have it: {INSTALL}")
    # Its import prints a screenful that concerns nobody here: overridden kernels, absent CUDA, deprecations.
    with warnings.catch_warnings(), held_back(STDERR):
        warnings.simplefilter("ignore")
        module = importlib.import_module("intel_extension_for_pytorch")
    logging.getLogger("IPEX").setLevel(logging.ERROR)
    return Ipex(module, f"{module.__version__}")


def supports_bf16_prepack(ipex: Ipex) -> bool:
    """Whether ``ipex.optimize(dtype=bfloat16)`` would pass its own check of the CPU; asked, never tried."""
    return ipex.module is not None and bool(ipex.module._C.onednn_has_bf16_support())


def optimize_training(
    ipex: Ipex, net: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """``ipex.optimize`` for bf16 training: bf16 weights with the fp32 rest kept by the optimizer, blocked layouts."""
    assert ipex.module is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimized: Any = ipex.module.optimize(net, optimizer=optimizer, dtype=torch.bfloat16)
    return optimized[0], optimized[1]
