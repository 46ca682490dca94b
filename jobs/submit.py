"""``python -m jobs.submit TASK …``: check a job, write its run folder, and start it."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from jobs.clusters import choose_cluster, get_scheduler, local
from jobs.clusters.request import save_margin, step_request
from jobs.clusters.scheduler import MakeRequest, Scheduler, SubmitError, scripts, submit_steps
from jobs.planning.command import named, read_command
from jobs.planning.names import check_folder_name
from jobs.planning.new_spec import new_spec, with_slot
from jobs.planning.resources import Profile
from jobs.planning.steps import Commands, Steps, plan
from jobs.planning.submissions import SUBMISSIONS, Submission, TuneSubmission
from jobs.planning.sweep import check_sweep
from jobs.record.job_folder import cancelled_text
from jobs.record.run_json import Job, JobSpec, PlannedRun, write_spec
from jobs.render.plan import describe, describe_config
from jobs.state.checks import check_free, check_model
from segdist.cli import run_command
from segdist.config import ConfigError, require
from segdist.run.file_system import replace_file
from segdist.run.folder import RunFolder
from segdist.run.replaced import Replaced

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
    except KeyboardInterrupt:
        print("\ninterrupted; what had been submitted was taken back", file=sys.stderr)
        return 130


def submit(argv: Sequence[str], commands: Commands) -> int:
    """Parse, check, write, start; nothing is written before every check has passed.

    Raises:
        ConfigError: for what cannot be run.
        SubmitError: where the cluster does not take the job.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(), end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    task, runs, profile, swept = read_command(argv)
    first = runs[0][1]
    cluster, why = choose_cluster(first.resources.cluster, dry_run=first.resources.dry_run)
    if swept:
        check_sweep({run.name: one for run, one in runs}, cluster)
    for run, _ in runs:
        check_folder_name(run.path, cluster)
    if cluster != "local":  # what is printed can be started again from any folder
        runs = [(RunFolder(run.path.resolve()), one) for run, one in runs]
    plans = [_Plan(run, one, plan(one, run, commands, cluster)) for run, one in runs]
    from segdist.data.preflight import first_size, preflight

    size = cache(first_size)  # the runs of a sweep share their data set
    for each in plans:
        check_model(task, each.submission, each.run)
        each.going_on.extend(check_free(each.run, each.steps, may_restore=not first.resources.dry_run))
        if not isinstance(each.submission, TuneSubmission):
            with named(each.run.name if swept else ""):
                preflight(each.submission, size)
    _describe_all(plans, cluster, why, profile)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    made_by = ("python", "-m", "jobs.submit", *(word for word in argv if word != "--dry-run"))
    planned = [
        PlannedRun(each.run, tuple(s for s, _ in each.steps), f".submitit/{stamp}", str(Path.cwd()), made_by)
        for each in plans
    ]
    requests = partial(step_request, planned, resources=first.resources, profile=profile)
    if cluster != "local":
        _require_same_steps(plans)
        # What cannot be said to the scheduler is refused before anything is written.
        scripts(get_scheduler(cluster, profile.dialect), planned[0].steps, lambda step, ids: requests(step, ids=ids))
    if first.resources.dry_run:
        _show(plans, cluster, profile, lambda step, ids: requests(step, ids=ids))
        return 0
    specs = [new_spec(task, argv, each.submission, p, profile, cluster) for each, p in zip(plans, planned)]
    if swept and cluster == "local":
        specs = [with_slot(spec, planned[0], index, first.resources) for index, spec in enumerate(specs)]
    scheduler = None if cluster == "local" else get_scheduler(cluster, profile.dialect)
    jobs = _write_and_start(plans, planned, specs, scheduler, lambda step, ids: requests(step, ids=ids))
    _say_submitted(plans[0].run, jobs)
    if first.resources.wait:
        return max(_wait(each.run) for each in plans)
    return 0


def _write_and_start(
    plans: Sequence[_Plan],
    planned: Sequence[PlannedRun],
    specs: Sequence[JobSpec],
    scheduler: Scheduler | None,
    make_request: MakeRequest,
) -> Sequence[tuple[Job, ...]]:
    """Write the run folders, and start the jobs, here without a scheduler; where that fails all is as it was.

    Raises:
        ConfigError: where a folder cannot be written.
        SubmitError: where the jobs are not taken.
    """
    try:
        for each, spec in zip(plans, specs):
            _write(each, spec)
        if scheduler is None:
            return [(_start_here(one.run, spec),) for one, spec in zip(planned, specs)]
        return _submit_to(scheduler, planned, specs, make_request)
    except BaseException as error:
        _bring_back(plans)
        if not isinstance(error, OSError):
            raise
        raise ConfigError(
            f"--run {plans[0].run.path}: cannot be written ({error}); give a folder you may write to"
        ) from error


@dataclass(frozen=True)
class _Plan:
    """A run that is to be submitted, its steps with their configs, and those that go on from a checkpoint."""

    run: RunFolder
    submission: Submission
    steps: Steps
    going_on: list[str] = field(default_factory=list)


def _require_same_steps(plans: Sequence[_Plan]) -> None:
    """The steps of a sweep are arrays: every run has the same ones; raises ConfigError."""
    first, *others = ([(s.step, s.nodes, s.ranks_per_node) for s, _ in each.steps] for each in plans)
    for each, steps in zip(plans[1:], others):
        require(
            steps == first,
            f"--sweep: {plans[0].run.name} and {each.run.name} have other steps, and an array has the same in each; "
            "give all the same number of --sizes",
        )


def _describe_all(plans: Sequence[_Plan], cluster: str, why: str, profile: Profile) -> None:
    print(f"cluster: {cluster} ({why})")
    if len(plans) > 1:
        print(f"sweep:   {len(plans)} runs in {plans[0].run.path.parent}")
    for each in plans:
        print(describe(each.run, each.steps, each.submission))
        for name in each.going_on:
            print(f"note: {name} goes on from its newest checkpoint; --overwrite starts it afresh")
    if cluster == "local" and plans[0].submission.resources.max_restarts not in (None, profile.max_restarts):
        print("note: --max-restarts: nothing requeues a job of the local cluster")
    resources = plans[0].submission.resources
    margin = save_margin(resources, profile)
    if cluster != "local" and margin < profile.signal_before_s:
        print(
            f"note: --walltime {resources.walltime}: training saves {margin} s before its end, half of it, and not "
            f"signal_before_s = {profile.signal_before_s}; ask for a longer one"
        )


def _show(plans: Sequence[_Plan], cluster: str, profile: Profile, make_request: MakeRequest) -> None:
    """A dry run: the configs, and the scripts to the letter as they would be submitted."""
    for each in plans:
        for step, config in each.steps:
            if config is not None:
                print(f"\n{describe_config(step, config)}")
    if cluster != "local":
        steps = [step for step, _ in plans[0].steps]
        for script in scripts(get_scheduler(cluster, profile.dialect), steps, make_request):
            print(f"\n# {script.step}: the job's script\n# submitted by: {script.submitted_by}\n{script.text.rstrip()}")
    print("\ndry run: nothing was written or started")


def _start_here(run: RunFolder, spec: JobSpec) -> Job:
    """Start a run's job on this machine; raises SubmitError, and says so in its run.json, where that fails."""
    try:
        return local.submit(run.path, spec)
    except SubmitError as error:
        write_spec(run.run_json, dataclasses.replace(spec, state="refused", note=str(error)))
        raise


def _submit_to(
    scheduler: Scheduler, planned: Sequence[PlannedRun], specs: Sequence[JobSpec], make_request: MakeRequest
) -> list[tuple[Job, ...]]:
    """Submit to a scheduler, and add its jobs to each run.json as it takes them.

    Raises:
        SubmitError: where it refuses, or jobs.cancel has asked to stop; what it had taken by then is taken back.
    """

    latest = list(specs)

    def record(jobs: Sequence[tuple[Job, ...]]) -> None:
        for index, (each, of_run) in enumerate(zip(planned, jobs)):
            latest[index] = latest[index].with_jobs(of_run)
            write_spec(each.run.run_json, latest[index])
            cancelled = cancelled_text(each.run.path / latest[index].submitit_folder)
            if of_run and cancelled is not None:
                raise SubmitError(f"{each.run.path}: {cancelled}")

    try:
        return submit_steps(scheduler, planned, make_request, record)
    except BaseException as error:
        note = str(error) or f"the submission was ended by {type(error).__name__}"
        for each, spec in zip(planned, latest):
            write_spec(each.run.run_json, dataclasses.replace(spec, state="refused", note=note))
        raise


def _say_submitted(run: RunFolder, jobs: Sequence[tuple[Job, ...]]) -> None:
    ids = [", ".join(job.id for job in of_run) for of_run in jobs]
    print(
        f"job:     {'; '.join(ids)} {'on ' + jobs[0][0].host if jobs[0][0].cluster == 'local' else ''}".rstrip() + "\n"
    )
    folder = run.path if len(jobs) == 1 else run.path.parent
    print(f"  python -m jobs.status {shlex.quote(str(folder))}")
    for line in ("logs {} --follow", "cancel {}"):
        print("  python -m jobs." + line.format(shlex.quote(str(run.path))), flush=True)


def _help() -> str:
    lines = (f"  {task:<10}{str(cls.__doc__).strip()}" for task, cls in SUBMISSIONS.items())
    return HELP.format(tasks="\n".join(lines))


def _bring_back(plans: Sequence[_Plan]) -> None:
    """Nothing was submitted: the results that the new jobs were to replace take their places again."""
    for each in plans:
        if Replaced(each.run.path).restore():
            print(f"note: {each.run.path}: its earlier results are back in their places", file=sys.stderr)


def _write(plan_: _Plan, spec: JobSpec) -> None:
    """Write what the jobs will read; earlier results are set aside until there are new ones."""
    replaced = Replaced(plan_.run.path)
    for step, config in plan_.steps:
        folder = step.folder(plan_.run)
        replaced.keep_copy(folder.config_json)
        replaced.take([folder.result_json])
        if step.step not in plan_.going_on:
            replaced.take([folder.metrics_jsonl])
        for log in folder.logs.glob("*.log"):
            replace_file(log, log.with_name(f"{log.name}.1"))
        if config is not None:
            folder.write_config(config)
    write_spec(plan_.run.run_json, spec)


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
