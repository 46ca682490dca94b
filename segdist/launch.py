"""From one process per allocation to one process per rank, with an honest exit code.

What to start is data (:func:`plan_ranks`); :func:`segdist.launch_step.launch` starts it, waits, and records how it
ended. In a Slurm job the ranks are the tasks of one srun; in a PBS job of several nodes an agent on each starts them
(:mod:`segdist.runtime.remote`). Elsewhere they are processes of this machine, and "nodes" are groups of them, each
with its own share of the cores.

Every rank writes to RUN/<step>/logs/rank<k>.log; rank 0 is copied to the launcher's output as well. No rank outlives
the launcher, however that ends.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from segdist.cli import parse, run_command
from segdist.config import TASKS, ConfigError, PipelineConfig, TaskConfig, require
from segdist.fence import require_free
from segdist.launch_pipeline import run_pipeline
from segdist.launch_step import MAX_RESTARTS, launch, settle_earlier
from segdist.results import RunFolder, StepFolder
from segdist.resume import choose_start
from segdist.runtime.allocation import THIS_MACHINE, Allocation, slurm_allocation
from segdist.runtime.cores import physical_cores, share
from segdist.runtime.pbs import pbs_allocation
from segdist.runtime.processes import RankSpec, say
from segdist.runtime.ranks import Ranks, rank_environment
from segdist.runtime.starters import ORDER, choose_starter

RANK_COMMAND = (sys.executable, "-m", "segdist")
"""What a rank runs; the task and its options follow."""
LAUNCHED: dict[str, type[TaskConfig] | type[PipelineConfig]] = {**TASKS, "pipeline": PipelineConfig}
"""What can be launched: the tasks, and all of them in order."""
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


# The command ------------------------------------------------------------------------------------------------


_HELP = """\
tasks:
{tasks}

example:
  python -m segdist.launch --nodes 2 --ranks-per-node 2 train --run runs/first --epochs 5

Options before TASK are the launcher's, all after it are the task's (TASK --help lists them).
Rank k writes to RUN/<step>/logs/rank<k>.log; rank 0 is shown as well.

exit code:
  0      every rank ended with 0 and the step's result.json is new
  2      wrong options: nothing was started, or a rank refused its own
  75     stopped after saving its work: the same command, or the restarted job, goes on from there
  other  that of the rank that failed first; 128 + signal where one ended it (137: SIGKILL)
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text}: must be seconds, at least 0; give for example 10")
    return value


def split_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, str, list[str]]:
    """The launcher's own options, the task, and the task's options as they are.

    Raises:
        ConfigError: for a wrong option of the launcher, or no task.
    """
    tasks = "\n".join(f"  {name:9} {(config.__doc__ or '').strip()}" for name, config in LAUNCHED.items())
    parser = _Parser(
        prog="python -m segdist.launch",
        usage="%(prog)s [--nodes N] [--ranks-per-node R] [--grace SECONDS] TASK [task options ...]",
        description="Start one process per rank, wait for all of them, and end as the first failing one did.",
        epilog=_HELP.format(tasks=tasks),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option, kind, default, unit, text in (
        ("--nodes", int, None, "N", "nodes; outside a job, groups of processes (default: the job's, else 1)"),
        ("--ranks-per-node", int, None, "R", "processes per node (default: the job's, else 1)"),
        ("--grace", _seconds, 10.0, "SECONDS", "from a rank's failure to SIGTERM, from there to SIGKILL (default: 10)"),
        ("--max-restarts", int, MAX_RESTARTS, "N", "times the job may be requeued (default: %(default)s)"),
    ):
        parser.add_argument(option, type=kind, default=default, metavar=unit, help=text)
    parser.add_argument(
        "--starter",
        default="auto",
        metavar="NAME[,NAME]",
        help="how ranks are started: local (processes of this machine), srun, or the first that works here of "
        f"{', '.join(ORDER)}; name one or several to choose (default: auto)",
    )
    at = next((place for place, word in enumerate(argv) if word in LAUNCHED), len(argv))
    options, unknown = parser.parse_known_args(list(argv[:at]))
    known = f"a task ({', '.join(LAUNCHED)})"
    require(not unknown, f"{' '.join(unknown)}: is neither {known} nor an option; see {parser.prog} --help")
    require(at < len(argv), f"TASK is missing: give {known}; see {parser.prog} --help")
    return options, argv[at], list(argv[at + 1 :])


def main(argv: Sequence[str] | None = None, rank_command: Sequence[str] = RANK_COMMAND) -> int:
    """The command line; returns the exit code."""

    def body() -> int:
        options, task, task_options = split_arguments(sys.argv[1:] if argv is None else argv)
        prog = f"python -m segdist.launch {task}"
        config: TaskConfig | PipelineConfig = parse(LAUNCHED[task], task_options, prog)
        require(bool(config.run), '--run "": must name the run folder; add for example --run runs/first')
        allocation = THIS_MACHINE if options.starter == "local" else find_allocation(os.environ)
        require(
            options.starter != "srun" or allocation.scheduler == "slurm",
            "--starter srun: needs a Slurm job around it; use sbatch or salloc, or --starter local",
        )
        if isinstance(config, PipelineConfig):
            return run_pipeline(
                options, config, allocation, lambda o, c, a: run_step(o, c, a, allocation, rank_command)
            )
        return run_step(options, config, [task, *task_options], allocation, rank_command)

    return run_command(body)


def run_step(
    options: argparse.Namespace,
    config: TaskConfig,
    arguments: Sequence[str],
    allocation: Allocation,
    rank_command: Sequence[str] = RANK_COMMAND,
) -> int:
    """Launch the ranks of one task; returns its exit code.

    Raises:
        ConfigError: for a result that is in the way, or nodes that are not there.
    """
    step = RunFolder(config.run).step_of(config)
    settled = settle_earlier(step, allocation, options.max_restarts)
    if settled is not None:
        return settled
    environ = {**os.environ, **allocation.environment}
    choose_start(step, config, environ)  # refuses what the ranks would refuse, before their logs are touched
    require_free(step, environ, log=say)
    cores = physical_cores(os.sched_getaffinity(0))
    port = choose_master_port(os.environ, allocation)
    nodes = (len(allocation.hosts) or 1) if options.nodes is None else options.nodes
    per_node = (allocation.ranks_per_node or 1) if options.ranks_per_node is None else options.ranks_per_node
    starter = starter_for(options.starter, allocation, nodes, os.environ)
    specs = plan_ranks(nodes, per_node, arguments, step, cores, port, rank_command, allocation)
    if allocation.scheduler == "none" and len(specs) > len(cores):
        say(
            f"warning: {len(specs)} ranks ({nodes} x {per_node}) on {len(cores)} "
            "physical cores: they share cores, so measure no speed here"
        )
    return launch(specs, options.grace, step, allocation, options.max_restarts, starter)


if __name__ == "__main__":
    sys.exit(main())
