"""From one process per allocation to one process per rank, with an honest exit code.

What to start is data (:mod:`segdist.launch.plan`); :func:`segdist.launch.step.launch` starts it, waits, and records how
it ended. In a Slurm job the ranks are the tasks of one srun; in a PBS job of several nodes an agent on each starts them
(:mod:`segdist.launch.remote`). Elsewhere they are processes of this machine, and "nodes" are groups of them, each
with its own share of the cores.

Every rank writes to RUN/<step>/logs/rank<k>.log; rank 0 is copied to the launcher's output as well. No rank outlives
the launcher, however that ends.
"""

from __future__ import annotations

import signal

from segdist.system.signal_pipe import remember_signals

if __name__ == "__main__":  # before the imports below, which take a while
    remember_signals((signal.SIGUSR1, signal.SIGTERM))

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from segdist.cli import parse, run_command
from segdist.config import TASKS, ConfigError, PipelineConfig, TaskConfig, require
from segdist.launch.allocation import THIS_MACHINE, Allocation, ranks_per_node
from segdist.launch.console import log_line
from segdist.launch.outcome import RankSpec
from segdist.launch.pipeline import run_pipeline
from segdist.launch.plan import (
    RANK_COMMAND,
    RankLayout,
    choose_master_port,
    detect_allocation,
    plan_ranks,
    resolve_starter,
)
from segdist.launch.sole import require_idle, sole_launch
from segdist.launch.starters import ORDER
from segdist.launch.step import MAX_RESTARTS, launch, record_failure, restart_decision
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.result import utc_now
from segdist.run.start_mode import choose_start_mode
from segdist.system.affinity import physical_cores
from segdist.system.quota import cpu_quota

LAUNCHED: dict[str, type[TaskConfig] | type[PipelineConfig]] = {**TASKS, "pipeline": PipelineConfig}
"""What can be launched: the tasks, and all of them in order."""

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
  75     stopped after saving its work, or a node was lost: the same command, or the restarted job, goes on
         from what was saved
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
        help="how ranks are started: local (processes of this machine), srun, or the first that starts them here of "
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
        allocation = _allocation_of(options, config)
        require(
            options.starter != "srun" or allocation.scheduler == "slurm",
            "--starter srun: needs a Slurm job around it; use sbatch or salloc, or --starter local",
        )
        if isinstance(config, PipelineConfig):
            with sole_launch(RunFolder(config.run).path, {**os.environ, **allocation.environment}):
                return run_pipeline(
                    options, config, allocation, lambda o, c, a: run_step(o, c, a, allocation, rank_command)
                )
        return run_step(options, config, [task, *task_options], allocation, rank_command)

    def report_storage() -> int:
        try:
            return body()
        except BrokenPipeError:
            raise
        except OSError as problem:
            raise ConfigError(
                f"{problem.filename or 'the run folder'}: {problem.strerror or problem}; mend that, or give a --run "
                "folder that you may read and write"
            ) from problem

    return run_command(report_storage)


def _allocation_of(options: argparse.Namespace, config: TaskConfig | PipelineConfig) -> Allocation:
    """The job around this process; where it cannot be read, the first step has failed, and has a result that says so.

    Raises:
        ConfigError: where it cannot be read.
    """
    if options.starter == "local":
        return THIS_MACHINE
    try:
        return detect_allocation(os.environ)
    except ConfigError as refused:
        run = RunFolder(config.run)
        step = run.step("train") if isinstance(config, PipelineConfig) else run.step_of(config)
        if not step.result_json.exists():
            record_failure(step, str(refused), utc_now(), 0.0, step.rank_log(0), THIS_MACHINE)
        raise


def run_step(
    options: argparse.Namespace,
    config: TaskConfig,
    arguments: Sequence[str],
    allocation: Allocation,
    rank_command: Sequence[str] = RANK_COMMAND,
) -> int:
    """Launch the ranks of one task; returns its exit code.

    Raises:
        ConfigError: for a result that is in the way, another launch, or nodes that are not there.
    """
    step = RunFolder(config.run).step_of(config)
    settled = restart_decision(step, allocation, options.max_restarts)
    if settled is not None:
        return settled
    environ = {**os.environ, **allocation.environment}
    choose_start_mode(step, config, environ)  # refuses what the ranks would refuse, before their logs are touched
    require_idle(step, environ)
    try:
        specs, starters = plan_step(options, step, (*rank_command, *arguments), allocation)
    except ConfigError as refused:
        if allocation.scheduler != "none":  # who asks after the job looks there, and not at what was printed
            record_failure(step, str(refused), utc_now(), 0.0, step.rank_log(0), allocation)
        raise
    with sole_launch(step.logs, environ):
        choose_start_mode(step, config, environ)  # again: another launch may have ended meanwhile
        return launch(specs, options.grace, step, allocation, options.max_restarts, starters)


def plan_step(
    options: argparse.Namespace, step: StepFolder, command: Sequence[str], allocation: Allocation
) -> tuple[tuple[RankSpec, ...], tuple[str, ...]]:
    """The ranks of a step, and what starts them.

    Raises:
        ConfigError: for nodes, ranks or a starter that the job cannot have.
    """
    cores = physical_cores(os.sched_getaffinity(0))
    port = choose_master_port(os.environ, allocation)
    nodes = (len(allocation.hosts) or 1) if options.nodes is None else options.nodes
    per_node = ranks_per_node(allocation) if options.ranks_per_node is None else options.ranks_per_node
    layout = RankLayout(nodes, per_node)
    starters, why = resolve_starter(options.starter, allocation, nodes, os.environ)
    if starters[0] in ORDER:
        log_line(f"ranks are started by {starters[0]} ({why})")
    specs = plan_ranks(layout, command, step, cores, port, allocation)
    quota = cpu_quota()
    usable = len(cores) if quota is None else min(len(cores), quota.cores)
    if allocation.scheduler == "none" and len(specs) > usable:
        log_line(
            f"warning: {len(specs)} ranks ({nodes} x {per_node}) on {usable} "
            f"{'physical cores' if usable == len(cores) else 'cores of a CPU quota'}: they share cores, so measure no "
            "speed here"
        )
    return specs, starters


if __name__ == "__main__":
    sys.exit(main())
