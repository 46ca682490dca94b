"""Slurm: one job a step through submitit's executor, chained by dependencies; state from squeue, else from sacct.

A batch script runs :func:`jobs.runner.run.run_steps` on the first node, and that the launcher, which starts the ranks
with srun::

    sbatch → submitit (exec) → jobs.runner → python -m segdist.launch → srun → ranks
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.clusters.request import Request
from jobs.clusters.scheduler import NOWHERE, SubmitError
from jobs.record.entry import Entry, Phase
from jobs.record.run_json import Job, PlannedRun

if TYPE_CHECKING:
    import submitit

_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
_FIELDS = ("JobArrayID", "State", "Reason", "NodeList", "TimeUsed", "RestartCnt")
_CALL_S = 60


class Slurm:
    """The Slurm cluster that ``sbatch`` talks to."""

    name = "slurm"
    title = "Slurm"

    def executor(self, request: Request) -> submitit.SlurmExecutor:
        """submitit's executor for a request; it makes the script, and submits it."""
        from jobs.clusters.slurm.executor import executor_of

        return executor_of(request)

    def submit_command(self, request: Request, script: str) -> list[str]:
        """The command that submits a script; all that it asks for stands in the script."""
        from jobs.clusters.slurm.executor import submit_command

        return submit_command(script)

    def query(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> Mapping[str, Entry]:
        """One squeue for all; for those that it has forgotten one sacct, where the site has it."""
        form = ",".join(f"{field}:|" for field in _FIELDS)
        done = _call("squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(ids)}", f"--Format={form}")
        nothing_known = done is not None and "Invalid job id" in done.stderr
        if done is None or (done.returncode != 0 and not nothing_known):
            said = "it is not on PATH" if done is None else (done.stderr.strip().splitlines() or ["no answer"])[-1]
            return {one: Entry("unknown", reason=f"squeue: {said}") for one in ids}
        rows = (line.split("|") for line in done.stdout.splitlines())
        entries = {row[0].strip(): entry_of(*row[1:6]) for row in rows if len(row) >= 6}
        lost = [one for one in ids if one not in entries]
        return {**{one: Entry("gone") for one in ids}, **(_from_sacct(lost) if lost else {}), **entries}

    def cancel(self, ids: Sequence[str], outputs: Mapping[str, str] = NOWHERE) -> None:
        """scancel them, the last ones first, so that none starts in between."""
        done = _call("scancel", *reversed(ids))
        if done is None or (done.returncode and "Invalid job id" not in done.stderr):
            raise SubmitError(f"scancel: {done.stderr.strip() if done else 'is not on PATH'}")

    def withdraw(self, ids: Sequence[str], arrays: bool) -> None:
        """Take back jobs, or whole arrays, of a submission that was refused later on."""
        self.cancel(ids)

    def tidy(self, planned: Sequence[PlannedRun], jobs: Sequence[tuple[Job, ...]]) -> None:
        """Nothing is left to do when all is submitted: Slurm ends what waits for a job that has failed already."""


def entry_of(state: str, reason: str, nodes: str, used: str, restarts: str) -> Entry:
    """One row of squeue. ``used`` is ``[D-][H:]MM:SS``."""
    state = state.strip()
    phase: Phase = "waiting" if state in _WAITING else "running" if state in _RUNNING else "ended"
    reason = "" if reason.strip() == "None" else reason.strip()
    count = int(restarts) if restarts.strip().isdecimal() else 0
    return Entry(phase, state, reason, nodes.strip(), elapsed_seconds(used), count)


def elapsed_seconds(text: str) -> float | None:
    """Seconds of Slurm's ``[D-][H:]MM:SS``; None for ``INVALID`` and the like."""
    days, _, clock = text.strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts) or len(parts) > 3:
        return None
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return float(seconds + 86400 * int(days or 0))


def _from_sacct(ids: Sequence[str]) -> dict[str, Entry]:
    done = _call("sacct", "-n", "-P", "-X", "-j", ",".join(ids), "-o", "JobID,State,NodeList,Elapsed")
    if done is None or done.returncode:  # a site without accounting: the run folder decides
        return {}
    found = {}
    for line in done.stdout.splitlines():
        one, state, nodes, used = line.split("|")[:4]
        word = state.split(" ")[0]  # "CANCELLED by 1000"
        if one in ids and word not in _WAITING:
            found[one] = entry_of(word, "", nodes, used, "0")
    return found


def _call(*command: str) -> subprocess.CompletedProcess[str] | None:
    """Run a command of Slurm; None where it is not there."""
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=_CALL_S)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} gave no answer in {_CALL_S} s")
