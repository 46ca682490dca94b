"""What a scheduler gave to this job: its id, its restarts and its nodes. Pure functions of the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segdist.config import ConfigError
from segdist.run.lease_owner import restarts
from segdist.run.result import job_environment

_FIRST_PORT, _PORTS = 10_000, 20_000


@dataclass(frozen=True)
class Allocation:
    """The nodes of one job. ``restarts`` says how often the scheduler has started it again.

    ``ranks_per_node`` is what the job asked for, or None where it did not say; ``uneven`` is the text of a job that
    asked for different numbers of them on its nodes. ``hosts`` may be empty for a single machine: the ranks are then
    processes of this host.
    """

    scheduler: Literal["none", "slurm", "pbs"] = "none"
    job_id: str = ""
    restarts: int = 0
    hosts: tuple[str, ...] = ()
    ranks_per_node: int | None = None
    uneven: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What every rank is told about its job."""
        if self.scheduler == "none":
            return {}
        return job_environment({"cluster": self.scheduler, "id": self.job_id, "restart": str(self.restarts)})

    @property
    def port(self) -> int:
        """The rendezvous port, from the job's id: two jobs on one node have two.

        It lies below the ports that the kernel gives to outgoing connections (32768 and up). Ids that differ by a
        multiple of 20,000 would have the same one; jobs so far apart hardly meet on a node.
        """
        return _FIRST_PORT + int("".join(re.findall(r"\d+", self.job_id)) or "0") % _PORTS


THIS_MACHINE = Allocation()
"""No scheduler: the ranks are processes of this machine."""


def slurm_allocation(environ: Mapping[str, str]) -> Allocation | None:
    """The allocation of a Slurm job (``sbatch``, ``salloc``), or None outside one.

    An element of an array is called ``ARRAY_INDEX``, as squeue does.

    Raises:
        ConfigError: for a node list or a number that cannot be read.
    """
    if "SLURM_JOB_ID" not in environ or "SLURM_JOB_NODELIST" not in environ:
        return None
    job_id = environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environ and "SLURM_ARRAY_TASK_ID" in environ:
        job_id = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    # SLURM_NTASKS_PER_NODE may be that of an allocation around this job; the other is this job's own, always.
    tasks = environ.get("SLURM_TASKS_PER_NODE", environ.get("SLURM_NTASKS_PER_NODE", ""))
    per_node = set(re.findall(r"(?:^|,)(\d+)", tasks))
    return Allocation(
        "slurm",
        job_id,
        restarts(environ, "SLURM_RESTART_COUNT"),
        expand_hosts(environ["SLURM_JOB_NODELIST"]),
        int(per_node.pop()) if len(per_node) == 1 else None,
        tasks if len(per_node) > 1 else "",
    )


def ranks_per_node(allocation: Allocation) -> int:
    """Ranks on each node as the job asked for them, or one.

    Raises:
        ConfigError: where it asked for another number on each.
    """
    if allocation.uneven:
        raise ConfigError(
            f"SLURM_TASKS_PER_NODE={allocation.uneven}: the nodes of job {allocation.job_id} have different numbers of "
            "tasks, and every node gets the same number of ranks; ask with --nodes and --ntasks-per-node, or give "
            "--ranks-per-node"
        )
    return allocation.ranks_per_node or 1


def expand_hosts(text: str) -> tuple[str, ...]:
    """The names in Slurm's short form: ``"n[01-03,7],gpu-a"`` is n01, n02, n03, n7, gpu-a.

    Raises:
        ConfigError: where the text has another form.
    """
    if not re.fullmatch(r"([^\[\],\s]|\[[\d,-]+\])+(,([^\[\],\s]|\[[\d,-]+\])+)*", text):
        raise ConfigError(f"SLURM_JOB_NODELIST={text!r}: is no list of nodes; start the job again with sbatch")
    names: list[str] = []
    for group in re.findall(r"(?:[^\[\],]|\[[^\]]*\])+", text):
        expanded = [""]
        for literal, numbers in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", group):
            endings = [literal] if literal else _numbers(numbers)
            expanded = [name + ending for name in expanded for ending in endings]
        names += expanded
    return tuple(names)


def _numbers(text: str) -> list[str]:
    found: list[str] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)] if dash else [part]
    return found
