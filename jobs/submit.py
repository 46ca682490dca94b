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
from jobs.clusters import choose_cluster, get_scheduler, local
from jobs.clusters.scheduler import PlannedRun, SubmitError
from jobs.planning.resources import Profile, read_profile, resolve
from jobs.planning.steps import Commands, Steps, plan
from jobs.planning.submissions import SUBMISSIONS, Submission
from jobs.planning.sweep import split_sweep
from jobs.record.processes import this_process
from jobs.record.run_json import Job, JobSpec, Step, read_spec, step_names, to_plain
from jobs.state.checks import check_free, check_model, unused_run
from segdist import config as configs
from segdist.cli import parse, run_command
from segdist.config import ConfigError, TaskConfig, require
from segdist.run.files import write_json
from segdist.run.folder import RunFolder
from segdist.run.result import ResultError, utc_now
from segdist.system.plural import count_noun

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
    except SubmitError as error:
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
    task, runs = _runs(argv)
    first = runs[0][1]
    resources = first.resources
    cluster, why = choose_cluster(resources.cluster, dry_run=resources.dry_run)
    profile = read_profile(resources.profile)
    if cluster != "local":  # what is printed can be started again from any folder
        runs = [(RunFolder(run.path.resolve()), one) for run, one in runs]
    plans = [(run, one, plan(one, run, commands, cluster)) for run, one in runs]
    from segdist.data.preflight import preflight

    going_on = []
    for run, one, steps in plans:
        check_model(task, one, run)
        going_on.append(check_free(run, steps))
    preflight(first)

    print(f"cluster: {cluster} ({why})")
    if len(plans) > 1:
        print(f"sweep:   {len(plans)} runs in {plans[0][0].path.parent}")
    for (run, one, steps), names in zip(plans, going_on):
        print(describe(run, steps, one))
        for name in names:
            print(f"note: {name} goes on from its newest checkpoint; --overwrite starts it afresh")
    if cluster == "local" and resources.max_restarts not in (None, profile.max_restarts):
        print("note: --max-restarts: nothing requeues a job of the local cluster")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    planned = [
        PlannedRun(run, tuple(s for s, _ in steps), f".submitit/{stamp}", str(Path.cwd())) for run, _, steps in plans
    ]
    if resources.dry_run:
        for _, _, steps in plans:
            for step, config in steps:
                if config is not None:
                    print(f"\n{describe_config(step, config)}")
        if cluster != "local":
            for name, text in get_scheduler(cluster).scripts(planned, resources, profile).items():
                print(f"\n# {name}: the job's script\n{text.rstrip()}")
        print("\ndry run: nothing was written or started")
        return 0
    specs = [_spec(task, argv, one, p, profile, index) for index, ((_, one, _), p) in enumerate(zip(plans, planned))]
    try:
        for (run, _, steps), spec, names in zip(plans, specs, going_on):
            _write(run, spec, steps, names)
        if cluster == "local":
            jobs: Sequence[tuple[Job, ...]] = [
                (local.submit(run.path, s.jobs[0]),) for (run, _, _), s in zip(plans, specs)
            ]
        else:
            jobs = get_scheduler(cluster).submit(planned, resources, profile)
        for (run, _, _), spec, made in zip(plans, specs, jobs):
            write_json(run.run_json, to_plain(dataclasses.replace(spec, jobs=tuple(made))))
    except OSError as error:
        raise ConfigError(
            f"--run {plans[0][0].path}: cannot be written ({error}); give a folder you may write to"
        ) from error
    _say_submitted(plans[0][0], jobs)
    if resources.wait:
        return max(_wait(run) for run, _, _ in plans)
    return 0


def _say_submitted(run: RunFolder, jobs: Sequence[tuple[Job, ...]]) -> None:
    ids = [", ".join(job.id for job in of_run) for of_run in jobs]
    print(
        f"job:     {'; '.join(ids)} {'on ' + jobs[0][0].host if jobs[0][0].cluster == 'local' else ''}".rstrip() + "\n"
    )
    folder = run.path if len(jobs) == 1 else run.path.parent
    print(f"  python -m jobs.status {shlex.quote(str(folder))}")
    for line in ("logs {} --follow", "cancel {}"):
        print("  python -m jobs." + line.format(shlex.quote(str(run.path))), flush=True)


def _runs(argv: Sequence[str]) -> tuple[str, list[tuple[RunFolder, Submission]]]:
    """The task, and every run with its submission: one, or those of a sweep."""
    argv = ["--queue" + word[len("--partition") :] if word.split("=")[0] == "--partition" else word for word in argv]
    rest, elements = split_sweep(argv)
    task, base = _parse([*rest, *elements[0].argv] if elements else rest)
    if not elements:
        return task, [(RunFolder(base.run or unused_run(task, base)), base)]
    require(
        task in ("train", "pipeline"),
        f"--sweep: is for train and pipeline; submit {task} once for each of its values",
    )
    folder = Path(base.run or unused_run(f"sweep-{task}", base))
    others = [_parse([*rest, *element.argv])[1] for element in elements[1:]]
    return task, [(RunFolder(folder / e.name), one) for e, one in zip(elements, [base, *others])]


def _help() -> str:
    lines = (f"  {task:<10}{str(cls.__doc__).strip()}" for task, cls in SUBMISSIONS.items())
    return HELP.format(tasks="\n".join(lines))


def _parse(argv: Sequence[str]) -> tuple[str, Submission]:
    task = argv[0]
    known = ", ".join(SUBMISSIONS)
    require(task in SUBMISSIONS, f"task {task!r}: is not known; give one of {known} as the first word")
    submission: Submission = parse(SUBMISSIONS[task], argv[1:], f"python -m jobs.submit {task}")
    resources = resolve(submission.resources, read_profile(submission.resources.profile))
    return task, dataclasses.replace(submission, resources=resources)


def describe(run: RunFolder, steps: Steps, submission: Submission) -> str:
    """Where and what will be run: the run folder, and every step with its exact command."""
    lines = [f"run:     {run.path}", f"steps:   {step_names([step for step, _ in steps])}"]
    for step, _ in steps:
        size = f"{count_noun(step.nodes, 'node')} x {count_noun(step.ranks_per_node, 'rank')}"
        alone = step.task == "quantize" and submission.resources.ranks > 1
        lines += [f"  {step.label} ({size}{', always in one process' if alone else ''})"]
        lines += [f"    {shlex.join(step.command)}"]
    return "\n".join(lines)


def describe_config(step: Step, config: TaskConfig) -> str:
    """The config of a step as JSON, a group a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in configs.to_plain(config).items()]
    return f"{step.step}/config.json\n{{\n" + ",\n".join(lines) + "\n}"


def _spec(
    task: str, argv: Sequence[str], submission: Submission, planned: PlannedRun, profile: Profile, index: int
) -> JobSpec:
    from segdist.run.provenance import checkout_commit

    # Until the job is there, this process is what is at work on the run.
    pid, started = this_process()
    names = tuple(step.step for step in planned.steps)
    job = Job(
        "local", "", socket.gethostname(), names, planned.submitit_folder, "", pid, started, token=uuid.uuid4().hex
    )
    resources = submission.resources
    swept = any(word.partition("=")[0] == "--sweep" for word in argv)
    slot = planned.run.path.parent.resolve() / f".slot{index % (resources.max_parallel or 1)}"
    return JobSpec(
        run=str(planned.run.path),
        task=task,
        created_at=utc_now(),
        command=(sys.executable, "-m", "jobs.submit", *argv),
        cwd=planned.cwd,
        resources=dataclasses.asdict(resources),
        profile=dataclasses.asdict(profile),
        steps=planned.steps,
        versions={
            "segdist": segdist.__version__,
            "commit": checkout_commit() or "unknown",
            "python": platform.python_version(),
        },
        jobs=(job,),
        slot=str(slot) if swept else "",
        earlier=_earlier(planned.run),
    )


def _earlier(run: RunFolder) -> tuple[dict[str, Any], ...]:
    if not run.run_json.exists():
        return ()
    try:
        plain = to_plain(read_spec(run.run_json))
    except ResultError as error:
        raise ConfigError(str(error)) from error
    return (*plain.pop("earlier"), plain)


def _write(run: RunFolder, spec: JobSpec, steps: Steps, going_on: Sequence[str]) -> None:
    for step, config in steps:
        folder = step.folder(run)
        folder.result_json.unlink(missing_ok=True)
        if step.step not in going_on:
            folder.metrics_jsonl.unlink(missing_ok=True)
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
