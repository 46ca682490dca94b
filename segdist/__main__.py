"""``python -m segdist TASK``: one rank of a task.

Before torch is loaded, the rank finds out who it is, pins itself to its cores and sets its thread counts; so this
module imports the standard library only, and the task last.
"""

from __future__ import annotations

import signal

from segdist.system.signal_pipe import keep_over_exec, remember_signals

if __name__ == "__main__":  # before the imports below, which take a while
    remember_signals((signal.SIGUSR1,))

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from segdist.cli import parse, run_command
from segdist.config import TASKS, ConfigError, TaskConfig, TrainConfig, TuneConfig
from segdist.machine.start import needs_restart, prepare_start, restart_process
from segdist.run.exit_codes import USAGE_ERROR
from segdist.run.folder import RunFolder
from segdist.system.affinity import pin_cores
from segdist.system.ranks import RankError, detect_ranks
from segdist.system.signals import StopFlag, ignore_walltime_warning

_USAGE = f"usage: python -m segdist {{{','.join(TASKS)}}} [--help] [--config FILE] [options]"


def main(argv: Sequence[str] | None = None, may_restart: bool = False) -> int:
    """Run one rank; returns its exit code (0 done, 2 bad input, 3 goal missed, 75 to be continued, 1 anything else).

    ``may_restart``: whether this process is the rank's own, and may start anew with another allocator.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["-h"], ["--help"]):
        print(_USAGE + "\n" + (__doc__ or ""))
        return 0
    if not arguments or arguments[0] not in TASKS:
        print(f"{_USAGE}\nerror: task {arguments[:1]}: known are {', '.join(TASKS)}", file=sys.stderr)
        return USAGE_ERROR
    task = arguments[0]
    parsed = partial(parse, TASKS[task], arguments[1:], f"python -m segdist {task}")
    return run_command(lambda: run_rank(task, parsed(), may_restart), encoding="utf-8")


def run_rank(task: str, config: TaskConfig, may_restart: bool = False) -> int:
    """Choose the allocator, take over the signals, pin this rank to its cores, then load torch and run the task."""
    if not config.run:
        raise ConfigError('--run "": must name the run folder; give for example --run runs/first')
    try:
        ranks = detect_ranks(os.environ)
    except RankError as error:
        raise ConfigError(str(error)) from error
    if ranks.world > 1:  # oneCCL takes every rank for a local one where these are not set
        os.environ.update(LOCAL_RANK=str(ranks.local_rank), LOCAL_WORLD_SIZE=str(ranks.local_world))
    start = prepare_start(config, ranks, RunFolder(config.run).step_of(config), os.environ)
    variables = needs_restart(start, os.environ) if may_restart else {}
    if variables:
        keep_over_exec((signal.SIGUSR1,))
        restart_process(variables, [sys.executable, *sys.orig_argv[1:]])
    stop = StopFlag()  # a thread, which an exec would end
    if isinstance(config, TrainConfig):
        stop.install()
    else:
        ignore_walltime_warning()
    for name, value in start.environment().items():
        os.environ.setdefault(name, value)
    threads = 0 if isinstance(config, TuneConfig) else config.runtime.threads
    cores = pin_cores(ranks.local_rank, ranks.local_world, threads)
    from segdist.tasks.frame import run_task

    return run_task(task, config, ranks, cores, stop, start)


def end_process(code: int) -> NoReturn:
    """End this process past the interpreter's own end, once its output is written.

    A thread that is in torch's store then, as the watchdog's may be where rank 0 was the first to leave, and gloo's
    where the ranks did not part in good order, would end the process by SIGABRT ("terminate called without an active
    exception") and not with its exit code. Nothing is left to the interpreter's end: the tasks close what they open.
    """
    if "torch" not in sys.modules:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end_process(main(may_restart=True))
