"""Ranks of a Slurm job: one ``srun`` for all nodes, watched until it ends; and the requeue of the job itself.

srun tells the story of its tasks on stderr (``srun: error: n2: task 1: Killed``) as it happens, but returns one number
for all of them: the first such line names the rank that failed first.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from segdist.launch.allocation import Allocation
from segdist.launch.console import Rank0Output, log_line, write_all
from segdist.launch.escalation import Escalation
from segdist.launch.outcome import Outcome, RankEnd, RankSpec, signal_name
from segdist.launch.supervisor import FORWARDED
from segdist.system.log_tail import LogTail
from segdist.system.output import STDERR
from segdist.system.ranks import PEER
from segdist.system.signal_pipe import signal_pipe

_TASKS_ENDED = re.compile(r"srun: error: \S+: tasks? ([\d,-]+): (.+)")
_LOOK_S = 0.5
_OWN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", PEER)
_SRUN_OPTIONS = (
    *("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_MEM_PER_GPU", "SLURM_NTASKS", "SLURM_NPROCS"),
    *("SLURM_NTASKS_PER_NODE", "SLURM_NTASKS_PER_CORE", "SLURM_NTASKS_PER_SOCKET", "SLURM_CPUS_PER_TASK"),
    *("SRUN_CPUS_PER_TASK", "SLURM_DISTRIBUTION", "SLURM_CPU_BIND", "SLURM_EXPORT_ENV", "SLURM_HINT"),
    *("SLURM_TRES_PER_TASK", "SLURM_THREADS_PER_CORE", "SLURM_EXCLUSIVE", "SLURM_OVERCOMMIT", "SLURM_EXACT"),
    *("SLURM_NTASKS_PER_GPU", "SLURM_NTASKS_PER_TRES", "SLURM_CORE_SPEC", "SLURM_THREAD_SPEC", "SLURM_MEM_BIND"),
    *("SLURM_CONSTRAINT", "SLURM_RESERVATION", "SLURM_TIMELIMIT", "SLURM_LABELIO", "SLURM_PARTITION"),
)
"""What srun reads from its environment as if it were its options (srun(1), "INPUT ENVIRONMENT VARIABLES")."""


def srun_command(specs: Sequence[RankSpec], hosts: Sequence[str] = ()) -> list[str]:
    """The command that starts those ranks, one task each, on the first of these hosts.

    ``--cpu-bind=none``, as every rank takes its own share of the node's cores; ``--kill-on-bad-exit``, so that no
    rank waits for a dead one; ``--mpi=none``, as MPI's variables would be taken for the rank's; ``--export=ALL``, as
    sbatch's ``--export=NONE`` would be srun's too.
    """
    first = specs[0].ranks
    hosts = hosts[: first.world // first.local_world]
    pattern = str(specs[0].log.absolute()).replace("%", "%%")
    return [
        "srun",
        "--export=ALL",
        f"--nodes={first.world // first.local_world}",
        *([f"--nodelist={','.join(hosts)}"] if hosts else []),
        f"--ntasks={first.world}",
        f"--ntasks-per-node={first.local_world}",
        "--distribution=block",
        "--kill-on-bad-exit=1",
        "--cpu-bind=none",
        "--overlap",
        "--mpi=none",
        "--input=none",
        "--wait=0",
        f"--output={pattern.removesuffix('rank0.log')}rank%t.log",
        *specs[0].argv,
    ]


def srun_environment(environ: Mapping[str, str], rank: Mapping[str, str]) -> dict[str, str]:
    """The environment of srun, and by it of every rank: without what another launcher, or a job around this one, has
    left of ranks, tasks and memory, which srun would take for its own options.

    Args:
        environ: of this process.
        rank: additions of any rank.
    """
    own = {
        name: value
        for name, value in environ.items()
        if name not in (*_OWN_VARIABLES, *_SRUN_OPTIONS) and not name.startswith("SUBMITIT_")
    }
    return own | {name: value for name, value in rank.items() if name not in _OWN_VARIABLES}


def run_srun(specs: Sequence[RankSpec], grace: float, hosts: Sequence[str] = ()) -> Outcome:
    """Start every rank with srun and wait for all of them; call it from the main thread.

    SIGUSR1 to this process reaches the ranks through srun. SIGTERM and SIGINT reach them through scancel, as srun
    itself would kill them at once; after ``grace`` seconds it does. Rank 0's log is copied to stdout.
    """
    environ = srun_environment(os.environ, specs[0].environment)
    command = srun_command(specs, hosts)
    log_line(f"$ {shlex.join(command)}")
    with signal_pipe((*FORWARDED, signal.SIGCHLD)) as signals, selectors.DefaultSelector() as selector:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        step = _SrunStep(specs, process, grace)
        selector.register(signals, selectors.EVENT_READ, lambda: step.forward(os.read(signals, 4096)))
        selector.register(process.stderr, selectors.EVENT_READ, step.listen)
        try:
            while process.poll() is None:
                for key, _ in selector.select(_LOOK_S):
                    key.data()
                step.show_log()
                step.escalate()
        finally:
            if process.poll() is None:
                process.kill()  # slurmstepd ends the tasks of an srun that is gone
                process.wait()
            step.listen()
            step.show_log()
            process.stderr.close()
    return step.end(process.returncode)


class _SrunStep:
    """One srun: what it says, what is passed on to it, and rank 0's log on its way to stdout."""

    def __init__(self, specs: Sequence[RankSpec], process: subprocess.Popen[bytes], grace: float) -> None:
        self.outcome = Outcome()
        self._specs = specs
        self._process = process
        self._text = ""
        self._said = ""
        self._escalation = Escalation(grace)
        self._log = LogTail(specs[0].log)
        self._shown = Rank0Output()

    def listen(self) -> None:
        """Take what srun has said, show it, and note the ranks that it says have failed."""
        assert self._process.stderr is not None
        while data := self._process.stderr.read(1 << 16):
            write_all(STDERR, data)
            self._text += data.decode("utf-8", errors="replace")
        *lines, self._text = self._text.split("\n")
        for line in lines:
            if line.startswith("srun: error:"):
                self._said = line.removeprefix("srun: error:").strip()
            self.outcome.ends += parse_task_ends(line, self._specs)

    def forward(self, numbers: bytes) -> None:
        """Pass signals on to the ranks."""
        for number in numbers:
            if number not in FORWARDED:
                continue
            log_line(f"was sent {signal_name(number)}; passing it on to the ranks")
            if self.outcome.stopped_by is None:
                self.outcome.stopped_by = number
            if number == signal.SIGUSR1:
                self._process.send_signal(number)
                continue
            self._escalation.after_stop()
            done = subprocess.run(
                ["scancel", f"--signal={signal_name(number)[3:]}", os.environ["SLURM_JOB_ID"]],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode:
                log_line(f"scancel: {done.stderr.strip()}")

    def escalate(self) -> None:
        """End the step once its time has come."""
        if self._escalation.due() is not None:
            log_line("the ranks did not end in time; ending the step")
            self._process.terminate()  # srun sends them SIGKILL

    def show_log(self) -> None:
        """Show what is new in rank 0's log."""
        self._shown.show(self._log.read_new())

    def end(self, code: int) -> Outcome:
        """The outcome; a failure of which srun named no rank counts as that of rank 0."""
        if code != 0 and self.outcome.failure is None:
            self.outcome.ends.append(_rank_end(self._specs[0], code))
            self.outcome.said = f"srun: {self._said}" if self._said else ""
        return self.outcome


def _rank_end(spec: RankSpec, code: int) -> RankEnd:
    if code < 0:
        return RankEnd(spec, signal=-code)
    return RankEnd(spec, signal=code - 128) if code > 128 else RankEnd(spec, exit_code=code)


def parse_task_ends(line: str, specs: Sequence[RankSpec]) -> list[RankEnd]:
    """The ranks of which a line of srun says that they failed: ``srun: error: n2: tasks 1,3-4: Killed``."""
    match = _TASKS_ENDED.match(line)
    if match is None:
        return []
    how = match[2].removesuffix("(core dumped)").strip()
    code = re.fullmatch(r"Exited with exit code (\d+)", how)
    numbers = {signal.strsignal(number): number for number in signal.valid_signals()}
    if code is None and how not in numbers and how != "Out Of Memory":
        return []
    ends = []
    for part in match[1].split(","):
        first, _, last = part.partition("-")
        for spec in specs[int(first) : int(last or first) + 1]:
            ends.append(
                _rank_end(spec, int(code[1])) if code else RankEnd(spec, signal=numbers.get(how, signal.SIGKILL))
            )
    return ends


def requeue(allocation: Allocation) -> str | None:
    """Put this job back into the queue; why that failed, or None.

    Slurm answers with a SIGTERM to all of the job, this process included; so that is ignored from here on.
    """
    if shutil.which("scontrol") is None:
        return "scontrol is not on PATH"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    done = subprocess.run(
        ["scontrol", "requeue", allocation.job_id], capture_output=True, text=True, errors="replace", check=False
    )
    return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def early_warning(allocation: Allocation, now: float) -> str | None:
    """What to say of a warning that came in the first half of the job's time; None of one that did not.

    Slurm sends it at once where its margin is longer than the time limit, and the job then saves and is requeued for
    next to nothing.
    """
    done = _squeue(allocation, "--format=%S|%e|%l", SLURM_TIME_FORMAT="%s")
    known = re.fullmatch(r"(\d+)\|(\d+)\|\d\S*", done)  # a limit may be UNLIMITED
    if known is None:
        return None
    start, end = float(known[1]), float(known[2])
    if now - start >= end - now:
        return None
    return (
        f"warning: SIGUSR1 came {now - start:.0f} s after the job's start and {end - now:.0f} s before its end; where "
        "it was the time limit's, its margin is longer than half of the limit: ask for more --time, or give sbatch "
        f"--signal=B:USR1@{(end - start) / 2:.0f}"
    )


def _squeue(allocation: Allocation, *arguments: str, **environ: str) -> str:
    """What squeue says about this job, in any of its states; nothing where it cannot say."""
    if shutil.which("squeue") is None:
        return ""
    done = subprocess.run(
        ["squeue", "--noheader", "--states=all", f"--jobs={allocation.job_id}", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def is_requeued(allocation: Allocation) -> bool:
    """Whether Slurm has taken this job back (preemption, a lost node, an administrator) and will start it again.

    The count of restarts goes up when that is decided; the state is COMPLETING for a cancelled job as well.
    """
    count = _squeue(allocation, "--Format=RestartCnt:|").strip("|")
    return count.isdecimal() and int(count) > allocation.restarts
