"""The optimizer, and its learning rate."""

from __future__ import annotations

import torch
from torch import nn

from segdist.config import TrainingConfig


def build_optimizer(net: nn.Module, cfg: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with momentum (the HRNet recipe) or AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101)."""
    if cfg.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay)
    return torch.optim.SGD(net.parameters(), cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay)


def learning_rate(cfg: TrainingConfig, step: int, steps: int) -> float:
    """Learning rate of ``step`` (from 0) of ``steps``: lr · (1 - step / steps) ** power, times (step + 1) / warmup
    within the warm-up.

    Polynomial decay as in DeepLab (Chen et al. 2017, https://arxiv.org/abs/1606.00915, section 4.1) and HRNet; gradual
    warm-up as in Goyal et al. 2017 (https://arxiv.org/abs/1706.02677, section 2.2).
    """
    decayed = cfg.lr * (1 - step / steps) ** cfg.poly_power
    return float(decayed * min(1.0, (step + 1) / cfg.warmup) if cfg.warmup else decayed)
