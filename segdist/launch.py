"""From one process per allocation to one process per rank, with an honest exit code.

What to start is data (:func:`plan_ranks`); :mod:`segdist.runtime.processes` starts it and waits; :func:`launch`
says and records how it ended. Here "nodes" are process groups on this machine, each with its own share of the cores.

Every rank writes to RUN/<step>/logs/rank<k>.log; rank 0 is copied to the launcher's output as well. The first
rank that fails decides the exit code and is named in the last line: the others mostly report that they lost a
neighbour. No rank outlives the launcher, however that ends.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from segdist import __version__
from segdist.cli import parse, run_command
from segdist.config import TASKS, ConfigError, EvaluateConfig, TaskConfig, require
from segdist.results import Result, RunFolder, StepFolder, job_of, utc_now
from segdist.runtime.cores import physical_cores, share
from segdist.runtime.processes import STDERR, RankSpec, run_ranks, say, write_all
from segdist.runtime.ranks import Ranks, rank_environment

RANK_COMMAND = (sys.executable, "-m", "segdist")
"""What a rank runs; the task and its options follow."""

_TAIL_LINES = 20


# What to start ----------------------------------------------------------------------------------------------


def plan_ranks(
    nodes: int,
    ranks_per_node: int,
    arguments: Sequence[str],
    step: StepFolder,
    cores: Sequence[int],
    master_port: int,
    rank_command: Sequence[str] = RANK_COMMAND,
) -> tuple[RankSpec, ...]:
    """Every rank of the job, node by node.

    Args:
        nodes: process groups to make; each has its own share of ``cores``.
        ranks_per_node: ranks of one node. All get the node's cores; each then claims its part itself.
        arguments: the task and its options, passed on as they are.
        step: where the logs go.
        cores: physical cores of this machine that may be used.
        master_port: port of the rendezvous on 127.0.0.1.
        rank_command: the program that takes ``arguments``.

    Raises:
        ConfigError: for fewer than one node or rank.
    """
    require(nodes >= 1, f"--nodes {nodes}: must be at least 1; give 1 or more")
    require(ranks_per_node >= 1, f"--ranks-per-node {ranks_per_node}: must be at least 1; give 1 or more")
    specs = []
    for rank in range(nodes * ranks_per_node):
        node, local_rank = divmod(rank, ranks_per_node)
        ranks = Ranks(rank, nodes * ranks_per_node, local_rank, ranks_per_node, node, "segdist.launch", "127.0.0.1")
        environment = {**rank_environment(ranks, master_port), "PYTHONUNBUFFERED": "1"}
        own = tuple(share(cores, node, nodes))
        specs.append(RankSpec(ranks, (*rank_command, *arguments), environment, own, step.rank_log(rank)))
    return tuple(specs)


def choose_master_port(environ: Mapping[str, str]) -> int:
    """The port of MASTER_PORT, or a free one where that is not set.

    The free port is given back before rank 0 binds it, as rank 0 could not bind one that is held here. Some
    process may take it in between; rank 0 then ends with "address already in use": start again. The kernel
    picks among some 28,000 ports, so this is rare; a MASTER_PORT of your own rules it out.

    Raises:
        ConfigError: for a MASTER_PORT that is no port.
    """
    text = environ.get("MASTER_PORT")
    if text is None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    require(
        text.isdecimal() and 1 <= int(text) <= 65535,
        f"MASTER_PORT={text!r}: must be a port from 1 to 65535; unset it to have a free one chosen",
    )
    return int(text)


# What is said and recorded about it -------------------------------------------------------------------------


def launch(specs: Sequence[RankSpec], grace: float, step: StepFolder) -> int:
    """Run the ranks of one step and return the launcher's exit code; call it from the main thread.

    Where the ranks left no result of this launch, a ``result.json`` with status "failed" is written for them.
    The reason comes last on stderr, under the last lines of the log of the rank that failed first.

    Raises:
        ConfigError: where the log folder cannot be made.
    """
    rotate_logs(step)
    started_at, started = utc_now(), time.monotonic()
    before = _identity(step.result_json)
    outcome = run_ranks(specs, grace)
    fresh = _identity(step.result_json) not in (None, before)
    if outcome.failure is None and fresh:
        return 0
    if outcome.failure is None:
        exit_code, log = 1, specs[0].log
        reason = error = f"{outcome}, but none wrote {step.result_json}"
    else:
        exit_code, log = outcome.exit_code, outcome.failure.spec.log
        reason = error = str(outcome)
        if outcome.failure.signal is None:
            error = ": ".join([reason, *last_lines(log, 1)])[:500]
    cause_is_elsewhere = outcome.failure is not None and outcome.failure.spec.rank != 0 and exit_code not in (2, 3)
    if not fresh or cause_is_elsewhere:  # rank 0 then knows only that it lost a neighbour
        result = Result(
            task=step.task,
            name=step.name,
            status="failed",
            started_at=started_at,
            ended_at=utc_now(),
            elapsed_s=round(time.monotonic() - started, 3),
            error=error,
            log=str(log),
            job=job_of(os.environ),
            versions={"python": platform.python_version(), "segdist": __version__},
        )
        try:
            step.write_result(result)
        except OSError as problem:  # the disk is full, say; how the ranks ended matters more
            say(f"{step.result_json}: cannot be written ({problem.strerror})")
    say(f"the last lines of {log}:")
    for line in last_lines(log, _TAIL_LINES):
        write_all(STDERR, f"  | {line}\n".encode())
    if outcome.failure is not None and outcome.exit_code == 128 + signal.SIGKILL:
        say("who sends SIGKILL: mostly the kernel or the scheduler where memory has run out (see dmesg)")
    if f"exit code {exit_code}" not in reason:
        reason += f"; exit code {exit_code}"
    write_all(STDERR, f"error: {reason}; log: {log}\n".encode())
    return exit_code


def rotate_logs(step: StepFolder) -> None:
    """Move each ``rank<k>.log`` of an earlier launch to ``rank<k>.log.1``, also of ranks no longer there.

    Raises:
        ConfigError: where the folder cannot be made or written.
    """
    try:
        step.logs.mkdir(parents=True, exist_ok=True)
        for log in step.logs.glob("rank*.log"):
            log.replace(log.with_name(f"{log.name}.1"))
    except OSError as error:
        raise ConfigError(
            f"{step.logs}: cannot be made or written ({error.strerror}); give a --run folder you may write to"
        ) from error


def last_lines(log: Path, count: int, most_bytes: int = 1 << 14) -> list[str]:
    """The last ``count`` non-empty lines of a log; a redrawn progress bar counts as lines of its own."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return [f"({log} has been removed)"]
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells one version of a file that is replaced as a whole from the next; needs no clock to be right."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


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
    tasks = "\n".join(f"  {name:9} {(config.__doc__ or '').strip()}" for name, config in TASKS.items())
    parser = _Parser(
        prog="python -m segdist.launch",
        usage="%(prog)s [--nodes N] [--ranks-per-node R] [--grace SECONDS] TASK [task options ...]",
        description="Start one process per rank, wait for all of them, and end as the first failing one did.",
        epilog=_HELP.format(tasks=tasks),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option, kind, default, unit, text in (
        ("--nodes", int, 1, "N", "process groups on this machine, each with its share of the cores"),
        ("--ranks-per-node", int, 1, "R", "processes per node"),
        ("--grace", _seconds, 10.0, "SECONDS", "from a rank's failure to SIGTERM, and from there to SIGKILL"),
    ):
        parser.add_argument(option, type=kind, default=default, metavar=unit, help=f"{text} (default: {default:g})")
    at = next((place for place, word in enumerate(argv) if word in TASKS), len(argv))
    options, unknown = parser.parse_known_args(list(argv[:at]))
    known = f"a task ({', '.join(TASKS)})"
    require(not unknown, f"{' '.join(unknown)}: is neither {known} nor an option; see {parser.prog} --help")
    require(at < len(argv), f"TASK is missing: give {known}; see {parser.prog} --help")
    return options, argv[at], list(argv[at + 1 :])


def main(argv: Sequence[str] | None = None, rank_command: Sequence[str] = RANK_COMMAND) -> int:
    """The command line; returns the exit code."""

    def body() -> int:
        options, task, task_options = split_arguments(sys.argv[1:] if argv is None else argv)
        prog = f"python -m segdist.launch {task}"
        config: TaskConfig = parse(TASKS[task], task_options, prog)
        require(bool(config.run), '--run "": must name the run folder; add for example --run runs/first')
        name = config.name if isinstance(config, EvaluateConfig) else None
        step = RunFolder(config.run).step(task, name)
        require(
            config.overwrite or not step.result_json.exists(),
            f"{step.result_json}: exists; give another --run, or --overwrite to replace it",
        )
        cores = physical_cores(os.sched_getaffinity(0))
        arguments = [task, *task_options]
        port = choose_master_port(os.environ)
        specs = plan_ranks(options.nodes, options.ranks_per_node, arguments, step, cores, port, rank_command)
        if len(specs) > len(cores):
            say(
                f"warning: {len(specs)} ranks ({options.nodes} x {options.ranks_per_node}) on {len(cores)} "
                "physical cores: they share cores, so measure no speed here"
            )
        return launch(specs, options.grace, step)

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
