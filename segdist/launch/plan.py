"""What a launch starts, as data: the scheduler's job around it, the starter, and every rank with its command,
environment, cores and log."""

from __future__ import annotations

import random
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from segdist.config import ConfigError, require
from segdist.launch.allocation import THIS_MACHINE, Allocation, slurm_allocation
from segdist.launch.outcome import RankSpec
from segdist.launch.pbs_job import pbs_allocation
from segdist.launch.starters import Which, choose_starters
from segdist.run.folder import StepFolder
from segdist.system.affinity import core_slice
from segdist.system.procfs import ReadText, read_text
from segdist.system.ranks import PEER, Ranks, rank_environment

RANK_COMMAND = (sys.executable, "-m", "segdist")
"""What a rank runs; the task and its options follow."""
_LOCAL_PORTS = range(10_000, 32_768)
"""Below the ports that the kernel gives to outgoing connections."""


MOST_RANKS = 65536
"""Ranks that are taken for a slip of the pen: their plan alone would fill the memory."""


@dataclass(frozen=True)
class RankLayout:
    """How many ranks there are, and where: ``ranks_per_node`` on each of ``nodes``, numbered node by node.

    Raises:
        ConfigError: for fewer than one node or rank.
    """

    nodes: int
    ranks_per_node: int

    def __post_init__(self) -> None:
        require(self.nodes >= 1, f"--nodes {self.nodes}: must be at least 1; give 1 or more")
        require(self.ranks_per_node >= 1, f"--ranks-per-node {self.ranks_per_node}: must be at least 1; give 1 or more")
        require(
            self.nodes * self.ranks_per_node <= MOST_RANKS,
            f"--nodes {self.nodes} --ranks-per-node {self.ranks_per_node}: more than {MOST_RANKS} ranks; give fewer",
        )

    @property
    def world(self) -> int:
        """Ranks on all nodes together."""
        return self.nodes * self.ranks_per_node


def plan_ranks(
    layout: RankLayout,
    command: Sequence[str],
    step: StepFolder,
    cores: Sequence[int],
    master_port: int,
    allocation: Allocation = THIS_MACHINE,
) -> tuple[RankSpec, ...]:
    """Every rank of the job, node by node.

    Args:
        layout: nodes of the allocation to use, and ranks on each. Without an allocation, nodes are process groups, each
            with its own part of ``cores``. All ranks of a node get its cores; each then pins itself to its own.
        command: what every rank runs: :data:`RANK_COMMAND`, the task and its options.
        step: where the logs go.
        cores: physical cores of this machine that may be used.
        master_port: port of the rendezvous on the first node.
        allocation: the scheduler's job; its first host is the rendezvous.

    Raises:
        ConfigError: for more nodes than the job has.
    """
    hosts = allocation.hosts
    require(
        not hosts or layout.nodes <= len(hosts),
        f"--nodes {layout.nodes}: job {allocation.job_id} has {len(hosts)} ({', '.join(hosts)}); "
        "ask the scheduler for more",
    )
    master = hosts[0] if hosts and layout.nodes > 1 else loopback_address()
    specs = []
    for rank in range(layout.world):
        node, local_rank = divmod(rank, layout.ranks_per_node)
        ranks = Ranks(rank, layout.world, local_rank, layout.ranks_per_node, node, "segdist.launch", master)
        environment = {**rank_environment(ranks, master_port), **allocation.environment, "PYTHONUNBUFFERED": "1"}
        if hosts and layout.nodes > 1:  # the first node may know its own name as a loopback address
            environment[PEER] = hosts[1] if node == 0 else hosts[0]
        # Of another machine's cores nothing is known here: a rank finds them when it pins itself.
        own = () if hosts and layout.nodes > 1 else tuple(core_slice(cores, node, layout.nodes))
        specs.append(RankSpec(ranks, tuple(command), environment, own, step.rank_log(rank)))
    return tuple(specs)


def loopback_address() -> str:
    """The address by which this machine reaches itself: 127.0.0.1, or ::1 where there is no IPv4."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", 0))
        except OSError:
            return "::1"
    return "127.0.0.1"


def find_free_port() -> int:
    """A TCP port that is free on this machine now, from a range in which the kernel picks no ports of its own.

    Raises:
        ConfigError: where none is.
    """
    for port in random.sample(_LOCAL_PORTS, len(_LOCAL_PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise ConfigError("MASTER_PORT: every port of this machine is taken; end some of its programs")


def choose_master_port(
    environ: Mapping[str, str],
    allocation: Allocation = THIS_MACHINE,
    free_port: Callable[[], int] = find_free_port,
) -> int:
    """The port of MASTER_PORT; else the one of the scheduler's job; else one that is free, as rank 0 binds it later.

    Raises:
        ConfigError: for a MASTER_PORT that is no port.
    """
    text = environ.get("MASTER_PORT")
    if text is None:
        return allocation.port if allocation.scheduler != "none" else free_port()
    require(
        text.isdecimal() and 1 <= int(text) <= 65535,
        f"MASTER_PORT={text!r}: must be a port from 1 to 65535; unset it to have a free one chosen",
    )
    return int(text)


def detect_allocation(environ: Mapping[str, str], read: ReadText = read_text) -> Allocation:
    """The job of Slurm or PBS around this process, or :data:`~segdist.launch.allocation.THIS_MACHINE`.

    Args:
        read: reads PBS' node file.

    Raises:
        ConfigError: where this process is one of several tasks of a job step: it would start the ranks several times.
    """
    if environ.get("SEGDIST_JOB_CLUSTER") == "local":  # a job of this machine, whatever is around it
        return THIS_MACHINE
    allocation = slurm_allocation(environ)
    if allocation is None:
        return pbs_allocation(environ, read) or THIS_MACHINE
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    require(
        tasks == "1",
        f"SLURM_STEP_NUM_TASKS={tasks}: srun has started the launcher {tasks} times; start it once, from the batch "
        "script or salloc's shell, without srun",
    )
    return allocation


def resolve_starter(
    asked: str, allocation: Allocation, nodes: int, environ: Mapping[str, str], which: Which = shutil.which
) -> tuple[tuple[str, ...], str]:
    """What starts the ranks, best first, and why. The launcher runs on the first node: a job's only one needs none.

    Args:
        asked: the value of ``--starter``.

    Raises:
        ConfigError: for one that is not known or cannot work here.
    """
    if asked in ("auto", "local", "srun"):
        if allocation.scheduler == "slurm" and (asked == "srun" or which("srun") is not None):
            return ("srun",), "a Slurm job"
        require(
            allocation.scheduler != "slurm" or nodes == 1,
            f"srun: is not on PATH, and job {allocation.job_id} has ranks on {nodes} nodes; put it there, or give "
            "--nodes 1",
        )
        if asked == "local" or nodes == 1 or not allocation.hosts:
            return ("local",), "one machine"
    require(bool(allocation.hosts), f"--starter {asked}: needs the nodes of a job around it; use --starter local")
    return choose_starters(asked, environ)
