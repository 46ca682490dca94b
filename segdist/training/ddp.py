"""The net over several ranks: DDP, and batch normalization's running statistics over all of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segdist.config import STRIDE
from segdist.models.aux_head import main_and_aux_logits
from segdist.runtime.precision import Precision
from segdist.runtime.rank_context import RankContext

SLOW_LINK_MBIT = 1000


def wrap_ddp(
    net: nn.Module, context: RankContext, precision: Precision, bucket_mb: int = 0, compress: bool = False
) -> nn.Module:
    """The net as DDP trains it; itself where there is one rank.

    ``bucket_mb``: size of the parts in which gradients are exchanged, 0 for DDP's own; ``compress``: in bf16.

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
        bucket_cap_mb=bucket_mb or None,
    )
    if compress:
        distributed.register_comm_hook((context.collectives.gradient_group, context.ranks.world), _mean_in_bf16)
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


def _mean_in_bf16(state, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are text
    """A bucket's mean over the ranks, exchanged in bf16: rounded once by each rank, and where sums are rounded.

    torch's own hook refuses a CPU-only build, by its name; and AVG is none of gloo's operations.
    """
    group, world = state
    gradients = bucket.buffer()
    half = gradients.to(torch.bfloat16)
    work = dist.all_reduce(half, group=group, async_op=True)
    return work.get_future().then(lambda _: gradients.copy_(half).div_(world))


def wants_bf16_exchange(wanted: str, nodes: int, link_mbit: int | None) -> tuple[bool, str]:
    """Whether gradients are exchanged in bf16, and why.

    Args:
        wanted: "none", "bf16" or "auto".
        nodes: of the job.
        link_mbit: speed of the network interface between them, None where the kernel does not say.
    """
    if wanted != "auto":
        return wanted == "bf16", "asked for"
    if nodes == 1:
        return False, "it never pays within a host"
    if link_mbit is None:
        return False, "the speed of the link is not known"
    return link_mbit <= SLOW_LINK_MBIT, f"the link has {link_mbit} Mbit/s; it pays up to {SLOW_LINK_MBIT}"


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
