"""``python -m jobs.clusters.pbs.multitask OPTIONS -- COMMAND``: run a command as every task of a submitit job.

PBS has no srun: the ranks' starter of the launcher does it here, and each task is told who it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from segdist.cli import run_command
from segdist.config import ConfigError, require
from segdist.launch.local import run_ranks
from segdist.launch.outcome import Outcome, RankSpec
from segdist.launch.pbs_job import pbs_allocation
from segdist.launch.start_attempts import run_with_starters
from segdist.launch.starters import choose_starters
from segdist.system.ranks import Ranks, rank_environment

GRACE_S = 10.0


def plan(hosts: Sequence[str], per_node: int, command: Sequence[str], state: Path, port: int) -> list[RankSpec]:
    """One rank for every task; task k writes to ``STATE_k_log.out``."""
    world = len(hosts) * per_node
    specs = []
    for rank in range(world):
        node, local = divmod(rank, per_node)
        ranks = Ranks(rank, world, local, per_node, node, "submitit", hosts[0])
        environment = rank_environment(ranks, port) | {
            "SUBMITIT_PBS_NUM_TASKS": str(world),
            "SUBMITIT_PBS_NUM_NODES": str(len(hosts)),
            "SUBMITIT_PBS_NODE": str(node),
            "SUBMITIT_PBS_HOSTS": ",".join(hosts),
            "SUBMITIT_PBS_RANK": str(rank),
            "SUBMITIT_PBS_LOCAL_RANK": str(local),
        }
        specs.append(RankSpec(ranks, tuple(command), environment, (), Path(f"{state}_{rank}_log.out")))
    return specs


def run(nodes: int, per_node: int, starter: str, state: Path, command: Sequence[str]) -> Outcome:
    """Start the tasks on the nodes of this PBS job, and wait for all of them.

    Raises:
        ConfigError: outside a job, or where it has fewer nodes.
    """
    allocation = pbs_allocation(os.environ)
    if allocation is None:
        raise ConfigError("PBS_JOBID: is not set; this runs inside a PBS job")
    hosts = allocation.hosts
    require(nodes <= len(hosts), f"--nodes {nodes}: the job has {len(hosts)} ({', '.join(hosts)})")
    specs = plan(hosts[:nodes], per_node, command, state, allocation.port)
    if nodes == 1 and starter == "auto":
        cores = tuple(sorted(os.sched_getaffinity(0)))
        return run_ranks([RankSpec(s.ranks, s.argv, s.environment, cores, s.log) for s in specs], GRACE_S)
    starters, _ = choose_starters(starter, os.environ)
    return run_with_starters(specs, hosts[:nodes], starters, GRACE_S, Path(f"{state}_ranks"))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code of the task that failed first, or 0."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser("python -m jobs.clusters.pbs.multitask", description=__doc__)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--tasks-per-node", type=int, required=True)
    parser.add_argument("--starter", default="auto")
    parser.add_argument("--state", type=Path, required=True, help="FOLDER/ID, before the names of the log files")
    options = parser.parse_args(words[:at])

    def body() -> int:
        outcome = run(options.nodes, options.tasks_per_node, options.starter, options.state, words[at + 1 :])
        if outcome.failure is not None:
            print(f"error: {outcome}", file=sys.stderr)
        return outcome.exit_code

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
