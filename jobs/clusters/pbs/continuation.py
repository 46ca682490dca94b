"""The files that a job leaves in its folder: which jobs have worked for it, how it ended, what it is asked.

They are written by the job's script (:mod:`jobs.clusters.pbs.script`) and beat what the server remembers.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.pbs.qstat import Call, call, query
from jobs.clusters.pbs.states import JobState


@dataclass(frozen=True)
class Continuation:
    """One job as submitit knows it, by the id of its first job; later jobs continue it."""

    folder: Path
    id: str

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.id}_{ending}"

    @property
    def jobs(self) -> list[str]:
        """The ids of all jobs of the chain, the present one last; its own before it has begun."""
        return _lines(self._file("jobs")) or [self.id]

    @property
    def starts(self) -> int:
        """How often it has begun."""
        return len(_lines(self._file("starts")))

    @property
    def started_again(self) -> str:
        """Where the server has started the present job before by itself, as it does after a lost node: ``n1``."""
        lines = [line.split() for line in _lines(self._file("starts"))[-2:]]
        same = len(lines) == 2 and lines[0][:1] == lines[1][:1]
        return lines[0][2] if same and lines[0][1:2] == ["on"] else ""

    @property
    def exit_code(self) -> int | None:
        """The exit code that the script left at its end; None before that, and for a job that was killed."""
        lines = _lines(self._file("exit"))
        return int(lines[0]) if lines and lines[0].isdecimal() else None

    def note_start(self, job: str) -> None:
        """Note that a job begins to work for this one; the plugin's scripts do it themselves."""
        _append(self._file("starts"), f"{job} on {socket.gethostname()} at {time.strftime('%FT%T')}")
        if not self._file("jobs").exists():
            _append(self._file("jobs"), job)

    def note_job(self, job: str) -> None:
        """Note which job goes on with this one."""
        _append(self._file("jobs"), job)

    def ask_requeue(self) -> None:
        """Ask the script to submit itself again when its command ends."""
        self._file("requeue").touch()

    def ask_interrupt(self) -> None:
        """Ask the script to send its command the signal that comes before a time limit."""
        self._file("interrupt").touch()

    def state(self, said: JobState) -> JobState:
        """The truth from what the server says about the chain's last job and from the script's own exit code.

        A deletion that comes as the job ends may be recorded as either; a job that has left the server's history
        is decided by its marker alone.
        """
        code = self.exit_code
        if said.word == "GONE" and code is None:
            return JobState("GONE", "the server knows it no more, and it left no exit code: it was killed")
        if said.word in ("RUNNING", "COMPLETING") and self.folder.is_dir() and not self.starts:
            return JobState("PENDING", "begins, or waits again for what goes on in another job", None, said.hosts)
        if code is None or (said.ended and said.word not in ("COMPLETED", "GONE", "FAILED")):
            return said
        word = "COMPLETED" if code == 0 else "FAILED"
        if said.ended or said.word in ("COMPLETING", "UNKNOWN"):
            return JobState(word, "" if code == 0 else f"exit code {code}", code, said.hosts, said.elapsed_s, said.runs)
        return said


def query_continuations(
    continuations: Iterable[Continuation], dialect: Dialect, run: Call = call
) -> Mapping[str, JobState]:
    """The state of every chain, by its id, with one call to the server for the present job of each.

    A job that submits its continuation ends only after that: where the last job of a chain is another one after the
    call, what was said about the first is no longer about the chain, and that is asked again the next time.
    """
    continuations = list(continuations)
    last = {continuation.id: continuation.jobs[-1] for continuation in continuations}
    said = query(list(dict.fromkeys(last.values())), dialect, run)
    found: dict[str, JobState] = {}
    for continuation in continuations:
        state = continuation.state(said[last[continuation.id]])
        if state.ended and continuation.jobs[-1] != last[continuation.id]:
            state = JobState("PENDING", f"continued by job {continuation.jobs[-1]}")
        found[continuation.id] = state
    return found


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
