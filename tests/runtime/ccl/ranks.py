"""Start ranks of a piece of Python, as processes of this machine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

HEAD = """
import datetime, os, sys, time
import torch, torch.distributed as dist
sys.path.insert(0, {root!r})
from segdist.runtime.ccl.group import register
torch.set_num_threads(1)
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dist.init_process_group("gloo", rank=rank, world_size=world)
register()
def new(timeout=60):
    return dist.new_group(backend="segdist_ccl", timeout=datetime.timedelta(seconds=timeout))
"""
ROOT = str(Path(__file__).parents[3])


def start(body: str, world: int, **more: str) -> list[subprocess.Popen[str]]:
    code = HEAD.format(root=ROOT) + textwrap.dedent(body)
    port = str(random.randrange(12000, 30000))
    return [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "WORLD_SIZE": str(world),
                "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "GLOO_SOCKET_IFNAME": "lo", "FI_TCP_IFACE": "lo",
                "CCL_ATL_TRANSPORT": os.environ.get("CCL_ATL_TRANSPORT", "ofi"),
                "FI_PROVIDER": "tcp",
                "CCL_WORKER_OFFLOAD": "0", **more,
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip


def kill_at_work(processes: list[subprocess.Popen[str]], victim: int) -> float:
    """Kill a rank a second after all have said READY; when that was."""
    for process in processes:
        assert process.stdout is not None
        while "READY" not in process.stdout.readline():
            pass
    time.sleep(1)
    killed = time.time()
    processes[victim].kill()
    return killed


def finish(processes: list[subprocess.Popen[str]], timeout: float = 300) -> tuple[list[int], list[str]]:
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def run(body: str, world: int, timeout: float = 300, **more: str) -> list[str]:
    codes, outputs = finish(start(body, world, **more), timeout)
    assert codes == [0] * world, (codes, *outputs)
    return outputs
