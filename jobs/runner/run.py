"""What runs inside a job: its steps of ``run.json`` in order, each a command of its own.

Every step ends with a ``result.json``: its own, or where it left none, one written here. A step that stopped after
saving, and whose job the scheduler starts again, has not ended.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from jobs.record.endings import write_end, write_failure, write_skipped
from jobs.record.heartbeat import heartbeat
from jobs.record.job_folder import REFUSED, cancelled_text, launcher_log
from jobs.record.processes import TOKEN, die_with_parent, job_processes
from jobs.record.run_json import JobSpec, Step, read_spec
from jobs.runner.slot import hold_slot
from segdist.run.exit_codes import TO_BE_CONTINUED
from segdist.run.files import write_json
from segdist.run.folder import RunFolder, StepFolder
from segdist.run.lease_owner import other_owner, superseded
from segdist.run.result import Result, ResultError, job_environment, utc_now
from segdist.system.log_tail import last_lines
from segdist.system.output import prepare_output

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class _Stop:
    """Set by a signal that asks the job to stop; passes it on, as TERM, to the step at work.

    USR1, by which a scheduler says that the time is nearly up, is passed on as it is: the launcher decides.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._warned = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self._warned = True  # kept for the next step, where none is at work
            self._pass_warning_on()
            return
        self.signal = signal.Signals(number)
        self.forward()

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        """The step at work from now on; it is told of what came before it."""
        self.process = process
        self._pass_warning_on()
        if self.signal is not None:
            self.forward()

    def _pass_warning_on(self) -> None:
        if self._warned and self.process is not None and self.process.poll() is None:
            self._warned = False
            self.process.send_signal(signal.SIGUSR1)

    def forward(self) -> None:
        """Tell the step, if there is one."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


def run_steps(run_folder: str, only: Sequence[str] = ()) -> int:
    """Run steps of a run folder, all of them by default; a failed one skips those after it, but for the report.

    Under a scheduler the process ends with the exit code: it is the job's.

    Returns:
        the exit code of the first step that failed, else 0. It is in the job's ``outcome.json`` too.
    """
    import submitit

    prepare_output(encoding="utf-8")
    environment = submitit.JobEnvironment()
    local = environment.cluster == "local"
    if local:
        die_with_parent(int(environment.job_id))
    job = {"cluster": environment.cluster, "id": environment.job_id}
    if not local:
        # PBS counts nothing: there the job's script does.
        job["restart"] = os.environ.get("SLURM_RESTART_COUNT", os.environ.get("SEGDIST_RESTART", "0"))
    stop = _Stop()
    for number in (*_STOP_SIGNALS, signal.SIGUSR1):
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))  # the job's script has held it back

    run = RunFolder(run_folder)
    spec = read_spec(run.run_json)
    job_folder = run.path / spec.submitit_folder
    beat = heartbeat(job_folder) if local else contextlib.nullcontext()
    with beat, hold_slot(spec.slot, lambda: stop.signal is not None):
        codes = _run_in_order(run, spec, [s for s in spec.steps if not only or s.step in only], job, stop)
    code = next((code for code in codes.values() if code), 0)
    if code != TO_BE_CONTINUED or local:
        name = "-".join(["outcome", *(step.replace("/", "-") for step in only)])
        write_json(job_folder / f"{name}.json", {"exit_code": code, "steps": codes})
    if not local:
        sys.exit(code)
    return code


def _run_in_order(
    run: RunFolder, spec: JobSpec, steps: Sequence[Step], job: dict[str, str], stop: _Stop
) -> dict[str, int]:
    """Run the steps; the exit code of each that did not end well, and of each that was run."""
    job_folder = run.path / spec.submitit_folder
    codes: dict[str, int] = {}
    failure: str | None = None
    for step in steps:
        stopped = _why_stopped(job_folder, stop)
        if stopped and failure is None:
            codes[step.step] = 1 if REFUSED in os.environ else 128 + signal.SIGTERM
            failure = f"{step.label} failed: {write_failure(step.folder(run), stopped, job).error}"
        elif failure and (step.task != "report" or stopped):
            write_skipped(step.folder(run), failure, job)
            print(f"{step.label}: skipped, because {failure}", flush=True)
        else:
            codes[step.step], error = _run_step(run, spec, step, job, stop)
            if error is not None and failure is None:
                failure = f"{step.label} failed: {error}"
    if failure is not None and job["cluster"] != "local":  # the jobs after this one will not run
        below = {step.step for step in steps}
        for step in spec.steps:
            if below.intersection(step.after) and not step.always:
                below.add(step.step)
                write_skipped(step.folder(run), failure, job)
                print(f"{step.label}: skipped, because {failure}", flush=True)
    return codes


def _why_stopped(job_folder: Path, stop: _Stop) -> str | None:
    if cancelled := cancelled_text(job_folder):
        return cancelled
    if refused := os.environ.get(REFUSED):
        return f"cannot be continued by another job ({refused}); submit the run again: it goes on from what was saved"
    return f"stopped by {stop.signal.name}" if stop.signal else None


def _run_step(run: RunFolder, spec: JobSpec, step: Step, job: dict[str, str], stop: _Stop) -> tuple[int, str | None]:
    """Run one step to its end; return its exit code, and the error where it failed."""
    folder = step.folder(run)
    started = utc_now()
    print(f"{step.label}: {shlex.join(step.command)}", flush=True)
    code = _run_command(spec, step, launcher_log(folder), job, stop)
    stopped = _why_stopped(run.path / spec.submitit_folder, stop) if stop.signal else None
    if code != 0 and (later := superseded(folder, job_environment(job))) is not None:
        print(f"{step.label}: this job goes on as {later}; nothing is written here", flush=True)
        return TO_BE_CONTINUED, None
    if code != 0 and (other := _other_job(folder, job)) is not None:
        last = "".join(last_lines(launcher_log(folder), 1)) or f"exit code {code}"
        print(f"{step.label}: failed: {other} has {folder.path}; nothing is written there: {last}", flush=True)
        return code, last
    if code == TO_BE_CONTINUED and (cancelled := cancelled_text(run.path / spec.submitit_folder)):
        code, stopped = 128 + signal.SIGTERM, cancelled  # nobody continues it
    if code == TO_BE_CONTINUED and job["cluster"] != "local":
        print(f"{step.label}: to be continued", flush=True)
        return code, None
    error = finalize_step(folder, code, started, stopped, job)
    if error is not None and code == 0:
        code = 1
    print(f"{step.label}: {'completed' if error is None else f'failed (exit code {code}): {error}'}", flush=True)
    return code, error


def _other_job(folder: StepFolder, job: dict[str, str]) -> str | None:
    """Another job that is at work on a step, or has left its result there since this one was submitted."""
    owner = other_owner(folder, job_environment(job))
    if owner is not None:
        return str(owner)
    try:
        theirs = folder.read_result().job
    except ResultError:
        return None
    if not theirs.get("id") or (theirs.get("cluster"), theirs["id"]) == (job["cluster"], job["id"]):
        return None
    return f"job {theirs['id']} of {theirs.get('cluster')}"


def _run_command(spec: JobSpec, step: Step, log: Path, job: dict[str, str], stop: _Stop) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SUBMITIT_")}
    environ |= job_environment(job)
    with log.open("ab", buffering=0) as output:
        output.write(f"$ {shlex.join(step.command)}\n".encode(errors="replace"))
        process = subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=spec.cwd,
            env=environ,
            preexec_fn=_follow_into_death(os.getpid()),
        )
        stop.watch(process)
        code = process.wait()
        stop.process = None
    if code < 0:
        _kill_orphans()
        return 128 - code
    return code


def _follow_into_death(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        die_with_parent(parent)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))  # until the launcher is ready for it

    return prepare


def _kill_orphans() -> None:
    """End what a killed launcher has left running; under a scheduler that is its affair."""
    for pid in job_processes(os.environ[TOKEN]) if TOKEN in os.environ else ():
        if pid != os.getppid():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def finalize_step(folder: StepFolder, code: int, started: str, stopped: str | None, job: dict[str, str]) -> str | None:
    """Hold a step's exit code against its result.json, and write or mend that where they differ.

    Args:
        code: the exit code of the step's command.
        stopped: why the job was stopped, if it was.

    Returns:
        the error of a step that failed, else None.
    """
    try:
        result: Result | None = folder.read_result()
        unreadable = None
    except ResultError as error:
        result, unreadable = None, str(error)
    if code == 0 and not stopped:
        if result is not None:
            return None
        if folder.task == "report":
            return write_end(folder, "completed", None, job, started).error
        return write_failure(folder, f"exit code 0, but {unreadable}", job, started).error
    if result is not None and result.status == "failed" and result.error and not stopped:
        return result.error
    if result is not None and result.status == "completed" and code == 0:
        return None
    reason = stopped or f"exit code {code}: {''.join(last_lines(launcher_log(folder), 1)) or 'no output'}"
    return write_failure(folder, reason, job, started).error
