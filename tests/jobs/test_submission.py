"""run.json is true at every moment of a submission: before, between two jobs, after a kill, a refusal, an interrupt."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cancel import cancel
from jobs.record.run_json import read_spec
from jobs.state.checks import check_free
from jobs.state.poll import Queue
from jobs.state.read import read_run
from segdist.config import ConfigError
from segdist.run.folder import RunFolder

from .conftest import ROOT

pytestmark = pytest.mark.slow  # trains, or starts many processes

SBATCH = """#!/bin/bash
echo "$@" >>"$LOG/sbatch"
count=$(wc -l <"$LOG/sbatch")
cp "$RUN/run.json" "$LOG/seen$count.json"
for word; do script=$word; done
cp "$script" "$LOG/script$count.sh"
if [ "$count" = "$AT" ]; then eval "$DO"; fi
echo "Submitted batch job $((10 + count))"
"""
SCANCEL = """#!/bin/bash
echo "$@" >>"$LOG/scancel"
"""
SQUEUE = """#!/bin/bash
for word; do case $word in --jobs=*) ids=${word#--jobs=};; esac; done
for id in ${ids//,/ }; do
  if grep -qw "$id" "$LOG/scancel" 2>/dev/null; then state=CANCELLED; else state=PENDING; fi
  echo "$id|$state|None||0:00|0|"
done
"""


class Login:
    """A login node whose Slurm's programs write down how they are called; ``do`` is run at the ``at``-th sbatch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RunFolder(folder / "runs" / "one")
        self.log = folder / "log"
        self.log.mkdir()
        for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL), ("squeue", SQUEUE)):
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(text)
            program.chmod(0o755)

    def environ(self, at: int = 0, do: str = "") -> dict[str, str]:
        """What the programs are told."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        more = {"PATH": path, "LOG": str(self.log), "RUN": str(self.run.path), "AT": str(at), "DO": do}
        return {**os.environ, **more, "PYTHONPATH": str(ROOT)}

    def submit(self, *argv: str, at: int = 0, do: str = "") -> subprocess.CompletedProcess[str]:
        """``python -m jobs.submit pipeline`` in a process of its own, whose pid is ``$SUBMITTER``."""
        command = [
            sys.executable,
            "-m",
            "jobs.submit",
            "pipeline",
            "--run",
            str(self.run.path),
            "--sizes",
            "64x128",
            *argv,
        ]
        words = ["bash", "-c", 'SUBMITTER=$$ exec "$@"', "bash", *command]
        return subprocess.run(
            words, env=self.environ(at, do), cwd=self.folder, capture_output=True, text=True, check=False, timeout=60,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who runs the tests may ignore it
        )  # fmt: skip

    def seen(self, call: int) -> dict[str, object]:
        """run.json as it was at that call of sbatch."""
        found: dict[str, object] = json.loads((self.log / f"seen{call}.json").read_text())
        return found


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """A login node; this process sees its Slurm, too."""
    node = Login(tmp_path)
    for name, value in node.environ().items():
        monkeypatch.setenv(name, value)
    return node


def states(login: Login) -> dict[str, str]:
    return {step.step: step.state for step in read_run(login.run.path, queue=Queue(every_s=0.0)).steps}


def test_run_json_is_whole_before_the_first_job_and_gets_each_id_as_it_comes(login: Login) -> None:
    done = login.submit()
    assert done.returncode == 0, done.stderr
    first, third = login.seen(1), login.seen(3)
    assert (first["state"], first["jobs"], first["cluster"]) == ("submitting", [], "slurm")
    assert [step["step"] for step in first["steps"]][:2] == ["train", "evaluate/fp32"]  # type: ignore[attr-defined]
    assert third["state"] == "submitting"
    assert [job["id"] for job in third["jobs"]] == ["11", "12"]  # type: ignore[attr-defined]
    spec = read_spec(login.run.run_json)
    assert (spec.state, [job.id for job in spec.jobs]) == ("submitted", ["11", "12", "13", "14", "15"])


def test_a_submitter_that_is_killed_leaves_the_truth_and_its_jobs_can_be_cancelled(login: Login) -> None:
    assert login.submit(at=2, do="kill -KILL $SUBMITTER; sleep 60").returncode == -9
    state = read_run(login.run.path, queue=Queue(every_s=0.0))
    assert {step.step: step.state for step in state.steps} == {
        "train": "waiting", "evaluate/fp32": "failed", "quantize": "skipped", "evaluate/int8": "skipped",
        "report": "skipped",
    }  # fmt: skip
    assert state.steps[1].error == ("the submission was broken off: train (11) was submitted; submit the run again")
    with pytest.raises(ConfigError, match=r"job 11 \(slurm\) is at work in it"):
        check_free(login.run, [])
    cancel(login.run.path)
    assert (login.log / "scancel").read_text() == "11\n"
    check_free(login.run, [])  # and it can be submitted again


def test_an_interrupt_takes_back_what_was_submitted_and_says_so(login: Login) -> None:
    done = login.submit(at=3, do="kill -INT $SUBMITTER; sleep 0.5")
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)
    assert sorted((login.log / "scancel").read_text().split()) in (["11", "12"], ["11", "12", "13"])
    spec = read_spec(login.run.run_json)
    assert (spec.state, spec.jobs, spec.note) == ("refused", (), "the submission was ended by KeyboardInterrupt")
    assert set(states(login).values()) == {"failed", "skipped"}


def test_a_refusal_takes_back_what_was_submitted_and_is_shown_by_status(login: Login) -> None:
    done = login.submit(at=2, do='echo "sbatch: error: Batch job submission failed: Invalid account" >&2; exit 1')
    assert done.returncode == 1
    assert "Invalid account" in done.stderr
    assert (login.log / "scancel").read_text() == "11\n"
    state = read_run(login.run.path, queue=Queue(every_s=0.0))
    assert state.steps[0].state == "failed"
    assert "Invalid account" in (state.steps[0].error or "")
    assert state.ended


def test_a_cancel_during_the_submission_stops_it(login: Login) -> None:
    asked = f"{sys.executable} -m jobs.cancel {login.run.path}"
    done = login.submit(at=1, do=asked)
    assert done.returncode == 1
    assert "cancelled by " in done.stderr
    assert (login.log / "scancel").read_text() == "11\n"
    assert read_spec(login.run.run_json).state == "refused"


def test_a_run_that_is_being_submitted_is_not_free(login: Login) -> None:
    again = f'{sys.executable} -m jobs.submit train --run "$RUN" >"$LOG/again" 2>&1'
    assert login.submit(at=1, do=again).returncode == 0
    assert "is at work in it; wait for it" in (login.log / "again").read_text()
    assert "a submission (pid " in (login.log / "again").read_text()


def test_the_script_that_is_submitted_is_the_one_that_a_dry_run_prints(login: Login) -> None:
    shown = login.submit("--dry-run").stdout
    assert login.submit().returncode == 0
    shown = shown[shown.index("# train: the job's script\n") : shown.index("\ndry run:")]
    parts = re.split(r"\n\n# (?=[\w/]+: the job's script)", shown)
    spec = read_spec(login.run.run_json)
    assert len(parts) == len(spec.steps)
    for number, (part, step) in enumerate(zip(parts, spec.steps), 1):
        text = part.split("\n", 2)[2]  # behind the name of the step, and the command that submits it
        for name in step.after:
            job = spec.job_of(name)
            assert job is not None
            text = text.replace(f"ID_OF_{name}", job.id)
        stamp = part[part.index("/.submitit/") :].split("/")[2]
        text = text.replace(stamp, Path(spec.submitit_folder).name)
        assert text.rstrip() == (login.log / f"script{number}.sh").read_text().rstrip()


def test_a_local_run_that_cannot_be_started_says_why(
    login: Login, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs.clusters import local
    from jobs.submit import main

    monkeypatch.setattr(local.sys, "executable", "/bin/false")
    assert main(["train", "--cluster", "local", "--run", str(login.run.path)]) == 1
    spec = read_spec(login.run.run_json)
    assert (spec.state, spec.jobs) == ("refused", ())
    assert spec.note in capsys.readouterr().err


def put_results(login: Login) -> dict[str, bytes]:
    """A run whose steps are done, as a refused submission has to leave it; gives its files."""
    for step in ("train", "evaluate/fp32", "quantize", "evaluate/int8"):
        folder = login.run.path / step
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / "last.pt").write_bytes(b"old")
        for name in ("result.json", "metrics.jsonl", "config.json"):
            (folder / name).write_text(json.dumps({"schema_version": 1, "old": step}))
    return results_of(login)


def results_of(login: Login) -> dict[str, bytes]:
    kept = ("result.json", "metrics.jsonl", "config.json", "last.pt")
    return {str(p): p.read_bytes() for p in sorted(login.run.path.rglob("*")) if p.name in kept}


def test_a_refused_submission_with_overwrite_brings_the_old_results_back(login: Login) -> None:
    before = put_results(login)
    done = login.submit("--overwrite", at=2, do="echo no such partition >&2; exit 1")
    assert done.returncode == 1
    assert "no such partition" in done.stderr
    assert "its earlier results are back in their places" in done.stderr
    assert results_of(login) == before


def test_a_killed_submission_with_overwrite_loses_nothing(login: Login) -> None:
    before = put_results(login)
    done = login.submit("--overwrite", at=1, do='kill -9 "$SUBMITTER"; exit 1')
    assert done.returncode in (-9, 137)
    assert results_of(login) != before
    again = login.submit()
    assert again.returncode == 2
    assert "results that a submission had set aside are back" in again.stdout
    assert "result.json: exists; give another --run, or --overwrite to replace it" in again.stderr
    assert results_of(login) == before


def test_a_submission_that_was_taken_has_set_the_old_results_aside(login: Login) -> None:
    put_results(login)
    assert login.submit("--overwrite").returncode == 0
    assert not (login.run.path / "train" / "result.json").exists()
    assert (login.run.path / ".replaced" / "train" / "result.json").exists()
