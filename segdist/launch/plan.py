"""What a launch starts, as data: every rank with its command, environment, cores and log."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Mapping, Sequence

from segdist.config import ConfigError, require
from segdist.launch.allocation import THIS_MACHINE, Allocation, slurm_allocation
from segdist.launch.console import say
from segdist.launch.outcome import RankSpec
from segdist.launch.pbs_job import pbs_allocation
from segdist.launch.starters import ORDER, choose_starter
from segdist.run.folder import StepFolder
from segdist.system.affinity import share
from segdist.system.ranks import Ranks, rank_environment

RANK_COMMAND = (sys.executable, "-m", "segdist")
"""What a rank runs; the task and its options follow."""
_LOCAL_PORTS = range(10_000, 32_768)
"""Below the ports that the kernel gives to outgoing connections."""


# What to start ----------------------------------------------------------------------------------------------


def plan_ranks(
    nodes: int,
    ranks_per_node: int,
    arguments: Sequence[str],
    step: StepFolder,
    cores: Sequence[int],
    master_port: int,
    rank_command: Sequence[str] = RANK_COMMAND,
    allocation: Allocation = THIS_MACHINE,
) -> tuple[RankSpec, ...]:
    """Every rank of the job, node by node.

    Args:
        nodes: nodes of the allocation to use; without one, process groups, each with its own share of ``cores``.
        ranks_per_node: ranks of one node. All get the node's cores; each then claims its part itself.
        arguments: the task and its options, passed on as they are.
        step: where the logs go.
        cores: physical cores of this machine that may be used.
        master_port: port of the rendezvous on the first node.
        rank_command: the program that takes ``arguments``.
        allocation: the scheduler's job; its first host is the rendezvous.

    Raises:
        ConfigError: for fewer than one node or rank, or more nodes than the job has.
    """
    require(nodes >= 1, f"--nodes {nodes}: must be at least 1; give 1 or more")
    require(ranks_per_node >= 1, f"--ranks-per-node {ranks_per_node}: must be at least 1; give 1 or more")
    hosts = allocation.hosts
    require(
        not hosts or nodes <= len(hosts),
        f"--nodes {nodes}: job {allocation.job_id} has {len(hosts)} ({', '.join(hosts)}); ask the scheduler for more",
    )
    master = hosts[0] if hosts else "127.0.0.1"
    specs = []
    for rank in range(nodes * ranks_per_node):
        node, local_rank = divmod(rank, ranks_per_node)
        ranks = Ranks(rank, nodes * ranks_per_node, local_rank, ranks_per_node, node, "segdist.launch", master)
        environment = {**rank_environment(ranks, master_port), **allocation.environment, "PYTHONUNBUFFERED": "1"}
        # Of another machine's cores nothing is known here: a rank finds them when it claims its share.
        own = () if len(hosts) > 1 else tuple(share(cores, node, nodes))
        specs.append(RankSpec(ranks, (*rank_command, *arguments), environment, own, step.rank_log(rank)))
    return tuple(specs)


def choose_master_port(environ: Mapping[str, str], allocation: Allocation = THIS_MACHINE) -> int:
    """The port of MASTER_PORT; else the one of the scheduler's job; else one that is free on this machine now.

    A free one is drawn from a range in which the kernel picks no ports of its own, as rank 0 binds it later.

    Raises:
        ConfigError: for a MASTER_PORT that is no port.
    """
    text = environ.get("MASTER_PORT")
    if text is None and allocation.scheduler != "none":
        return allocation.port
    if text is None:
        for port in random.sample(_LOCAL_PORTS, len(_LOCAL_PORTS)):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(("127.0.0.1", port)) != 0:
                    return port
        raise ConfigError("MASTER_PORT: every port of this machine is taken; end some of its programs")
    require(
        text.isdecimal() and 1 <= int(text) <= 65535,
        f"MASTER_PORT={text!r}: must be a port from 1 to 65535; unset it to have a free one chosen",
    )
    return int(text)


def find_allocation(environ: Mapping[str, str]) -> Allocation:
    """The scheduler's job around this process, or none.

    Raises:
        ConfigError: where this process is one of several tasks of a job step: it would start the ranks several times.
    """
    allocation = slurm_allocation(environ)
    if allocation is None:
        return pbs_allocation(environ) or THIS_MACHINE
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    require(
        tasks == "1",
        f"SLURM_STEP_NUM_TASKS={tasks}: srun has started the launcher {tasks} times; start it once, from the batch "
        "script or salloc's shell, without srun",
    )
    return allocation


def starter_for(asked: str, allocation: Allocation, nodes: int, environ: Mapping[str, str]) -> str:
    """What starts the ranks. The launcher runs on the first node: where that is the only one, it does so itself.

    Raises:
        ConfigError: for one that is not known or cannot work here.
    """
    if asked in ("auto", "local", "srun"):
        if allocation.scheduler == "slurm":
            return "srun"
        if asked == "local" or nodes == 1 or not allocation.hosts:
            return "local"
    require(bool(allocation.hosts), f"--starter {asked}: needs the nodes of a job around it; use --starter local")
    names = ORDER if asked == "auto" else tuple(asked.split(","))
    name, why = choose_starter(names[0] if len(names) == 1 else "auto", environ, order=names)
    say(f"ranks are started by {name} ({why})")
    return name
