"""What a checkpoint of HRNetV2-W48 costs a training at 256x512: printed, nothing is asserted about wall-clock time.

Run with ``python -m pytest -s tests/benchmarks/bench_checkpoint.py``; it takes about two minutes on two cores.
"""

import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from segdist.models.build import build_net
from segdist.models.forward import predict_logits
from segdist.training.async_writer import AsyncWriter, Snapshot
from segdist.training.checkpoint_file import CheckpointFolder

BATCH = 2
TIMES = 3


def bench_checkpoint_stall(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_net("hrnetv2_w48", 19, 48).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    images = torch.randn(BATCH, 3, 256, 512).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 19, (BATCH, 256, 512))
    folder, snapshot, writer = CheckpointFolder(tmp_path / "checkpoints", keep=2), Snapshot(), AsyncWriter()

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(predict_logits(net, images, (256, 512)), labels).backward()
        optimizer.step()
        return time.perf_counter() - start

    def save(number: int) -> float:
        """Seconds for which the training waits; as in Checkpointer.save."""
        start = time.perf_counter()
        writer.join()
        state = {"step": number, "weights": net.state_dict(), "optimizer": optimizer.state_dict()}
        copied = snapshot.take(state)
        writer.start(lambda: folder.write(copied))
        return time.perf_counter() - start

    step()
    first = save(0)  # allocates the copy's memory
    writer.wait()
    alone, beside, stalls = [], [], []
    for number in range(1, TIMES + 1):
        alone.append(step() + step())
        stalls.append(save(number))
        beside.append(step() + step())
        writer.wait()
    one = median(alone) / 2
    more = median(b - a for a, b in zip(alone, beside))
    print(f"\nhrnetv2_w48, SGD with momentum, {BATCH} x 256x512, {torch.get_num_threads()} threads")
    print(f"  checkpoint                {folder.last.stat().st_size / 1e6:8.0f} MB")
    print(f"  step                      {one:8.2f} s")
    print(f"  stall, the first          {first:8.3f} s  ({100 * first / one:.1f} % of a step)")
    print(f"  stall                     {median(stalls):8.3f} s  ({100 * median(stalls) / one:.1f} % of a step)")
    print(f"  written beside the steps  {median(writer.seconds):8.2f} s, which then take {more:+.2f} s in all")
