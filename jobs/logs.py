"""``python -m jobs.logs RUN [--step STEP] [--rank K] [--follow]``: what a rank has written."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from jobs.state.model import RunState, StepState, find_step
from jobs.state.poll import Queue
from jobs.state.read import the_run
from segdist.cli import path_argument, run_command
from segdist.config import ConfigError
from segdist.system.log_tail import LogTail

POLL_S = 0.3
"""Seconds between two looks at the log."""
STATE_POLL_S = 3.0
"""Seconds, at the most, between two looks at the run's other files; at first a tenth of the time that has gone by."""


def current_step(run: RunState) -> StepState:
    """The step that is running, else the one that failed, else the last that has begun, else the first."""
    steps = run.own_steps
    for state in ("running", "failed", "unknown"):
        for step in steps:
            if step.state == state:
                return step
    begun = [step for step in steps if step.state == "completed"]
    return begun[-1] if begun else steps[0]


def log_of(step: StepState, rank: int) -> Path:
    """The log of a rank; rank 0's is the launcher's where the step ended before there were ranks.

    Raises:
        ConfigError: where there is none; the message lists what is there.
    """
    log = step.folder.rank_log(rank)
    if log.exists():
        return log
    if rank == 0 and step.launcher_log.exists():
        return step.launcher_log
    there = sorted(path.name for path in step.folder.logs.glob("*.log"))
    raise ConfigError(
        f"--rank {rank}: {step.label} ({step.state}) has no log of that rank; "
        f"in {step.folder.logs} there is {', '.join(there) or 'nothing yet'}"
    )


def follow(run: Path, out: TextIO, rank: int, first: str | None = None, only: str | None = None) -> RunState:
    """Print a rank's output as it comes, step after step, until the job has ended.

    The log is looked at often; the run folder's other files, and the scheduler, more and more rarely: a login node's
    storage is everybody's.

    Args:
        first: the step to begin with; the job's first by default.
        only: stop at the end of this step.
    """
    tails: dict[Path, LogTail] = {}
    queue, closing, begin = Queue(), False, time.monotonic()
    while True:
        state = the_run(run, queue)  # before the logs: what was written before the end is printed
        steps = state.own_steps if only is None else [find_step(state.steps, only)]
        names = [step.step for step in steps]
        shown = steps[names.index(first) if first else 0 :]
        for step in shown:
            _print_new(state, step, rank, tails, out)
        if state.ended or (only is not None and steps[0].result is not None):
            return state
        if all(step.result is not None for step in state.own_steps) and not closing:
            queue, closing = Queue(every_s=1.0), True  # it can only be the scheduler tidying up
        now = time.monotonic()
        again = now + min(STATE_POLL_S, (now - begin) / 10)
        at_work = [step for step in shown if step.result is None][:1]
        while True:
            time.sleep(POLL_S)
            if time.monotonic() >= again:
                break
            for step in at_work:
                _print_new(state, step, rank, tails, out)


def _print_new(state: RunState, step: StepState, rank: int, tails: dict[Path, LogTail], out: TextIO) -> None:
    """Print what has come to a step's log since the last look."""
    log = step.folder.rank_log(rank)
    if log not in tails:
        over = step.result is not None or state.ended
        if not log.exists() and rank == 0 and over:
            log = step.launcher_log
        if not log.exists():
            return
    if log not in tails:
        print(f"── {step.label} ──", file=out, flush=True)
        tails[log] = LogTail(log)
    out.write(tails[log].read_new(whole_lines=True).decode("utf-8", errors="replace"))
    out.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser("python -m jobs.logs", description="Print the log of one rank of a run.")
    parser.add_argument("run", type=path_argument, help="run folder")
    parser.add_argument("--step", help="train, evaluate/NAME, quantize or report (default: the one at work)")
    parser.add_argument("--rank", type=int, default=0, help="rank, counted over all nodes (default: 0)")
    parser.add_argument("--follow", action="store_true", help="go on until the job ends")
    args = parser.parse_args(argv)

    def body() -> None:
        state = the_run(args.run)
        step = find_step(state.steps, args.step) if args.step else current_step(state)
        if args.follow and not state.ended:
            only = step.step if args.step else None
            follow(args.run, sys.stdout, args.rank, first=step.step, only=only)
            return
        text = log_of(step, args.rank).read_text(encoding="utf-8", errors="replace")
        sys.stdout.write(text)
        if step.state == "failed":
            print(f"{step.label} failed: {step.last_error_line}; see {step.launcher_log}", file=sys.stderr)

    try:
        return run_command(body, output_is_result=True)
    except KeyboardInterrupt:
        print("stopped following; the job goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
