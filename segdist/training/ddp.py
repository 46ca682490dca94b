"""The net over several ranks: DDP, and batch normalization's averages over all of them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segdist.config import STRIDE
from segdist.models.aux_head import main_and_aux_logits
from segdist.runtime.precision import Precision
from segdist.runtime.rank_context import RankContext


def distribute(net: nn.Module, context: RankContext, precision: Precision) -> nn.Module:
    """The net as DDP trains it; itself where there is one rank.

    DDP orders its buckets anew after the first backward pass, and with the order the rounding of sums over more than
    two ranks changes. So a pass over nothing comes first: a resumed training then adds in the same order as one that
    was never stopped.
    """
    if context.ranks.world == 1:
        return net
    distributed = DistributedDataParallel(
        net,
        process_group=context.collectives.gradient_group,
        broadcast_buffers=False,  # batch normalization's averages are united once an epoch, over all ranks
        gradient_as_bucket_view=True,
    )
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net.train()
    for _ in range(2):  # the second one's forward pass makes the new buckets
        with precision.autocast():
            outputs = main_and_aux_logits(distributed(torch.zeros(2, 3, 2 * STRIDE, 2 * STRIDE)))
        torch.stack([logits.float().sum() * 0 for logits in outputs if logits is not None]).sum().backward()
    net.zero_grad(set_to_none=True)
    for name, buffer in net.named_buffers():
        buffer.copy_(buffers[name])
    return distributed


def average_batch_norm_stats(net: nn.Module, context: RankContext) -> None:
    """Replace batch normalization's running averages by their mean over all ranks; each saw other samples."""
    if context.ranks.world == 1:
        return
    buffers = [b for name, b in net.named_buffers() if name.endswith(("running_mean", "running_var"))]
    flat = context.collectives.sum(torch.cat([b.flatten().double() for b in buffers])) / context.ranks.world
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers])):
        buffer.copy_(mean.reshape(buffer.shape))
