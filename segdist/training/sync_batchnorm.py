"""Batch normalization over the samples of all ranks, on CPUs (torch's own SyncBatchNorm refuses them)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167) with the statistics of all ranks.

    A channel's count, sum and sum of squares are added over the ranks in float64, so ranks may have different numbers
    of samples, and the result is that of one rank with all of them, to fp32 rounding. In eval mode it is plain batch
    normalization; its parameters and buffers have the same names.
    """

    group: dist.ProcessGroup | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: ``[n, channels, h, w]`` → the same."""
        if not self.training:
            return super().forward(x)
        normalized, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, self.eps, self.group)
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                unbiased = variance * (count / (count - 1).clamp(min=1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        return normalized


def convert_sync_batchnorm(net: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    """Put :class:`SyncBatchNorm2d` in the place of each ``BatchNorm2d``, with the same parameters; gives the net."""
    for name, child in list(net.named_children()):
        if type(child) is nn.BatchNorm2d:
            synced = SyncBatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
            synced._parameters, synced._buffers = child._parameters, child._buffers
            synced.group = group
            setattr(net, name, synced)
        else:
            convert_sync_batchnorm(child, group)
    return net


class _Normalize(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) · weight + bias, mean and var over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: dist.ProcessGroup | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = x.numel() // x.shape[1]
        own_variance, own_mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        own_mean, own_variance = own_mean.double(), own_variance.double()
        sums = torch.cat([own_mean, own_variance + own_mean**2, own_mean.new_ones(1)]) * count
        dist.all_reduce(sums, group=group)
        total, channels = sums[-1], x.shape[1]
        mean = sums[:channels] / total
        variance = (sums[channels : 2 * channels] / total - mean**2).clamp(min=0)
        y = F.batch_norm(x, mean.to(weight.dtype), variance.to(weight.dtype), weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean.float(), (variance + eps).rsqrt().float(), total)
        ctx.group = group
        ctx.mark_non_differentiable(mean, variance, total)
        return y, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, scale, total = ctx.saved_tensors
        gradient = gradients[0].float()
        shape = (1, -1, 1, 1)
        standard = (x.float() - mean.view(shape)) * scale.view(shape)
        for_bias = gradient.sum((0, 2, 3))
        for_weight = (gradient * standard).sum((0, 2, 3))
        sums = torch.stack([for_bias, for_weight]).double()
        dist.all_reduce(sums, group=ctx.group)
        of_mean, of_scale = (sums / total).float()
        for_x = gradient - of_mean.view(shape) - standard * of_scale.view(shape)
        for_x *= (weight.float() * scale).view(shape)
        return for_x.to(x.dtype), for_weight.to(weight.dtype), for_bias.to(weight.dtype), None, None
