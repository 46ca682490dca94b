"""``python -m jobs.submit TASK …``: check a job, write its run folder, and start it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import shlex
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import segdist
from jobs.checks import check_free, check_model, unused_run
from jobs.clusters import choose_cluster, local
from jobs.processes import this_process
from jobs.spec import (
    SUBMISSIONS,
    Commands,
    Job,
    JobSpec,
    Step,
    Steps,
    Submission,
    plan,
    read_spec,
    step_names,
    to_plain,
)
from segdist import config as configs
from segdist.cli import parse, run_command
from segdist.config import ConfigError, TaskConfig, require
from segdist.results import ResultError, RunFolder, utc_now, write_json

HELP = """\
usage: python -m jobs.submit TASK [OPTIONS]

Submit a job. It writes to a run folder of its own; the commands that look after it are printed.

{tasks}

python -m jobs.submit TASK --help lists the options of a task.
"""


def main(argv: Sequence[str] | None = None, commands: Commands | None = None) -> int:
    """The command; ``commands`` are the programs a job starts. Returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return run_command(lambda: submit(arguments, commands or Commands()))
    except local.SubmitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def submit(argv: Sequence[str], commands: Commands) -> int:
    """Parse, check, write, start; nothing is written before every check has passed.

    Raises:
        ConfigError: for what cannot be run.
        SubmitError: where the cluster does not take the job.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(), end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    task, submission = _parse(argv)
    cluster, why = choose_cluster(submission.resources.cluster)
    run = RunFolder(submission.run or unused_run(task, submission))
    steps = plan(submission, run, commands)
    from segdist.preflight import preflight

    check_model(task, submission, run)
    check_free(run, steps, submission.overwrite)
    preflight(submission)

    print(f"cluster: {cluster} ({why})")
    print(describe(run, steps, submission))
    if submission.resources.dry_run:
        for step, config in steps:
            if config is not None:
                print(f"\n{describe_config(step, config)}")
        print("\ndry run: nothing was written or started")
        return 0
    spec = _spec(task, argv, run, steps, submission, cluster)
    try:
        _write(run, spec, steps)
        job = local.submit(run.path, spec.job)
        write_json(run.run_json, to_plain(dataclasses.replace(spec, job=job)))
    except OSError as error:
        raise ConfigError(f"--run {run.path}: cannot be written ({error}); give a folder you may write to") from error
    print(f"job:     {job.id} on {job.host}\n")
    for line in ("status {}", "logs {} --follow", "cancel {}"):
        print("  python -m jobs." + line.format(shlex.quote(str(run.path))), flush=True)
    return _wait(run) if submission.resources.wait else 0


def _help() -> str:
    lines = (f"  {task:<10}{str(cls.__doc__).strip()}" for task, cls in SUBMISSIONS.items())
    return HELP.format(tasks="\n".join(lines))


def _parse(argv: Sequence[str]) -> tuple[str, Submission]:
    task = argv[0]
    known = ", ".join(SUBMISSIONS)
    require(task in SUBMISSIONS, f"task {task!r}: is not known; give one of {known} as the first word")
    submission: Submission = parse(SUBMISSIONS[task], argv[1:], f"python -m jobs.submit {task}")
    return task, submission


def describe(run: RunFolder, steps: Steps, submission: Submission) -> str:
    """Where and what will be run: the run folder, and every step with its exact command."""
    lines = [f"run:     {run.path}", f"steps:   {step_names([step for step, _ in steps])}"]
    for step, _ in steps:
        size = f"{_count(step.nodes, 'node')} x {_count(step.ranks_per_node, 'rank')}"
        alone = step.task == "quantize" and submission.resources.ranks > 1
        lines += [f"  {step.label} ({size}{', always in one process' if alone else ''})"]
        lines += [f"    {shlex.join(step.command)}"]
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def describe_config(step: Step, config: TaskConfig) -> str:
    """The config of a step as JSON, a group a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in configs.to_plain(config).items()]
    return f"{step.step}/config.json\n{{\n" + ",\n".join(lines) + "\n}"


def _spec(
    task: str, argv: Sequence[str], run: RunFolder, steps: Steps, submission: Submission, cluster: str
) -> JobSpec:
    from segdist.versions import checkout_commit

    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    # Until the job is there, this process is what is at work on the run.
    pid, started = this_process()
    return JobSpec(
        run=str(run.path),
        task=task,
        created_at=utc_now(),
        command=(sys.executable, "-m", "jobs.submit", *argv),
        cwd=str(Path.cwd()),
        resources=dataclasses.asdict(submission.resources),
        steps=tuple(step for step, _ in steps),
        versions={
            "segdist": segdist.__version__,
            "commit": checkout_commit() or "unknown",
            "python": platform.python_version(),
        },
        job=Job(cluster, "", socket.gethostname(), pid, started, uuid.uuid4().hex, f".submitit/{stamp}"),
        earlier=_earlier(run),
    )


def _earlier(run: RunFolder) -> tuple[dict[str, Any], ...]:
    if not run.run_json.exists():
        return ()
    try:
        plain = to_plain(read_spec(run.run_json))
    except ResultError as error:
        raise ConfigError(str(error)) from error
    return (*plain.pop("earlier"), plain)


def _write(run: RunFolder, spec: JobSpec, steps: Steps) -> None:
    for step, config in steps:
        folder = step.folder(run)
        for stale in (folder.result_json, folder.metrics_jsonl):
            stale.unlink(missing_ok=True)
        for log in folder.logs.glob("*.log"):
            log.replace(log.with_name(f"{log.name}.1"))
        if config is not None:
            write_json(folder.config_json, configs.to_plain(config))
    write_json(run.run_json, to_plain(spec))


def _wait(run: RunFolder) -> int:
    from jobs.logs import follow
    from jobs.status import outcome

    print(flush=True)
    try:
        state = follow(run.path, sys.stdout, rank=0)
    except KeyboardInterrupt:
        cancel = f"python -m jobs.cancel {shlex.quote(str(run.path))}"
        print(f"\nno longer waiting; the job goes on. End it with {cancel}", file=sys.stderr)
        return 130
    print()
    for step in state.own_steps:
        print(outcome(step))
    return state.exit_code


if __name__ == "__main__":
    sys.exit(main())
