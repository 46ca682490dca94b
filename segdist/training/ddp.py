"""The net over several ranks: DDP, and batch normalization's running statistics over all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segdist.config import STRIDE
from segdist.models.aux_head import main_and_aux_logits
from segdist.runtime.precision import Precision
from segdist.runtime.rank_context import RankContext


def wrap_ddp(net: nn.Module, context: RankContext, precision: Precision) -> nn.Module:
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
        broadcast_buffers=False,  # batch normalization's running statistics are averaged over all ranks once an epoch
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


def gradient_types(net: nn.Module) -> str:
    """In which type the ranks exchange a net's gradients, for ``result.json``: that of each weight."""
    sizes: dict[str, float] = {}
    for weight in net.parameters():
        name = str(weight.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + weight.numel() * weight.element_size() / 1e6
    return " and ".join(f"{size:.1f} MB of {name}" for name, size in sorted(sizes.items()))


def running_stats(net: nn.Module) -> dict[str, Tensor]:
    """Batch normalization's running means and variances by name: what each rank has of its own within an epoch."""
    return {name: b for name, b in net.named_buffers() if name.endswith(("running_mean", "running_var"))}


def average_running_stats(net: nn.Module, context: RankContext) -> None:
    """Replace batch normalization's running statistics by their mean over all ranks; each saw other samples."""
    if context.ranks.world == 1:
        return
    buffers = list(running_stats(net).values())
    total = context.collectives.all_reduce(torch.cat([b.flatten().double() for b in buffers]))
    for buffer, mean in zip(buffers, (total / context.ranks.world).split([b.numel() for b in buffers])):
        buffer.copy_(mean.reshape(buffer.shape))
