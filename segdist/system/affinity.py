"""Which cores may this process use, and how many threads: pure functions, and one that applies them.

Importing this module loads nothing heavy: thread counts must be in the environment before torch is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping, Sequence

from segdist.system.procfs import ReadText, read_text
from segdist.system.quota import CpuQuota, cpu_quota


def physical_cores(allowed: Iterable[int], read: ReadText = read_text) -> list[int]:
    """One hardware thread of every physical core among ``allowed``, neighbours in socket and cache side by side.

    Hyper-threads do not help dense arithmetic: of each core's threads only the first allowed one is used. Where
    /sys does not describe the cores (some containers), every allowed one counts.
    """
    seen: dict[tuple[int, int], int] = {}
    for cpu in sorted(allowed):
        base = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        try:
            key = (int(read(f"{base}/physical_package_id")), int(read(f"{base}/core_id")))
        except (OSError, ValueError):
            key = (0, -1 - cpu)
        seen.setdefault(key, cpu)
    return [seen[key] for key in sorted(seen, key=lambda key: (key[0], seen[key]))]


def core_slice(cores: Sequence[int], index: int, count: int) -> list[int]:
    """The part of ``cores`` that belongs to rank (or node) ``index`` of ``count``.

    Parts are contiguous, disjoint and differ by one core at the most. With more ranks than cores, neighbouring ranks
    have one core together: nobody gets none, and nobody gets two.
    """
    total = len(cores)
    if total >= count:
        return list(cores[index * total // count : (index + 1) * total // count])
    return [cores[index * total // count]]


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that give OpenMP and MKL that many threads, for a process that has not loaded torch yet."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "KMP_BLOCKTIME": "1",
    }


def quota_share(quota: CpuQuota | None, local_world: int) -> int | None:
    """Threads that a rank may have of the node's CPU quota, at least one; None where there is no quota."""
    return None if quota is None else max(1, quota.cores // local_world)


def pin_cores(
    local_rank: int, local_world: int, threads: int, environ: MutableMapping[str, str] = os.environ
) -> list[int]:
    """Pin this process to its part of the node's cores and set its thread counts; call it before importing torch.

    Args:
        local_rank: this rank's number on the node.
        local_world: ranks on the node.
        threads: threads to use, or 0 for one for each of its cores; never more than those, nor than its share of a
            CPU quota. Which of the cores a quota's threads run on is left to the kernel: containers side by side
            would all pin themselves to the first ones.

    Returns:
        the cores used, as many as there are threads.
    """
    own = core_slice(physical_cores(os.sched_getaffinity(0)), local_rank, local_world)
    if threads:
        own = own[:threads]
    os.sched_setaffinity(0, own)
    own = own[: quota_share(cpu_quota(), local_world)]
    environ.update(thread_environment(len(own)))
    # Threads that wait for each other sleep: spinning ones made a two-thread pass up to eight times slower where a
    # virtual machine's cores are not all running at once, and win next to nothing elsewhere. A user's choice stands.
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return own
