"""What schedulers say, and how often they are asked; replies as a real Slurm 22.05 gave them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from jobs.clusters.slurm import cluster as slurm
from jobs.clusters.slurm.cluster import Slurm, elapsed_seconds, entry_of
from jobs.clusters.slurm.executor import submit_command
from jobs.record.entry import Entry
from jobs.record.run_json import Job, JobSpec, Step, to_plain
from jobs.state.poll import Queue
from jobs.state.read import read_run, read_runs
from jobs.status import status_table
from segdist.run.files import append_json_line, write_json
from segdist.run.folder import RunFolder
from segdist.run.result import Result

SQUEUE = """\
2287204|CANCELLED|Resources||0:00|0|
2287208|PENDING|BeginTime||0:00|1|
2287210|RUNNING|None|n[1-2]|1-02:03:04|0|
40_0|COMPLETED|None|n1|0:17|0|
"""


class Scheduler:
    """Answers from a table, and counts how often it is asked."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)
        self.asked: list[list[str]] = []

    def query(self, ids: Sequence[str], outputs: object = None) -> Mapping[str, Entry]:
        self.asked.append(list(ids))
        return {one: self.entries.get(one, Entry("gone")) for one in ids}


def _job(number: str, *steps: str) -> Job:
    return Job("slurm", number, "login1", steps, ".submitit/1", f"/r/{number}_0_log.out")


def _write_run(path: Path, jobs: Sequence[Job], after: Mapping[str, tuple[str, ...]]) -> RunFolder:
    steps = tuple(
        Step(name, name.partition("/")[0], name.rpartition("/")[2], 1, 1, ("launch",), after.get(name, ()))
        for job in jobs
        for name in job.steps
    )
    run = RunFolder(path)
    spec = JobSpec(
        str(path), "pipeline", "2026-01-31T12:00:00Z", (), "/", {}, {}, steps, {}, ".submitit/1", "slurm", tuple(jobs)
    )
    write_json(run.run_json, to_plain(spec))
    return run


def _said(monkeypatch: pytest.MonkeyPatch, replies: Mapping[str, tuple[int, str, str]]) -> list[tuple[str, ...]]:
    calls: list[tuple[str, ...]] = []

    def call(*command: str) -> subprocess.CompletedProcess[str] | None:
        calls.append(command)
        if command[0] not in replies:
            return None
        code, out, err = replies[command[0]]
        return subprocess.CompletedProcess(command, code, out, err)

    monkeypatch.setattr(slurm, "_call", call)
    return calls


def test_one_squeue_tells_of_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _said(monkeypatch, {"squeue": (0, SQUEUE, "")})
    entries = Slurm().query(["2287204", "2287208", "2287210", "40_0", "7"])
    assert len([call for call in calls if call[0] == "squeue"]) == 1
    assert entries["2287204"] == Entry("ended", "CANCELLED", "Resources", "", 0.0, 0)
    assert entries["2287208"] == Entry("waiting", "PENDING", "BeginTime", "", 0.0, 1)
    assert entries["2287210"] == Entry("running", "RUNNING", "", "n[1-2]", 93784.0, 0)
    assert entries["40_0"].state == "COMPLETED"
    assert entries["7"] == Entry("gone")


def test_sacct_is_asked_for_what_squeue_has_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = (1, "", "slurm_load_jobs error: Invalid job id specified")
    _said(monkeypatch, {"squeue": forgotten, "sacct": (0, "7|CANCELLED by 1000|n3|00:01:00\n", "")})
    assert Slurm().query(["7"])["7"] == Entry("ended", "CANCELLED", "", "n3", 60.0, 0)
    _said(monkeypatch, {"squeue": forgotten, "sacct": (1, "", "Slurm accounting storage is disabled")})
    assert Slurm().query(["7"])["7"] == Entry("gone")


def test_a_controller_that_gives_no_answer_is_not_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    _said(monkeypatch, {"squeue": (1, "", "slurm_load_jobs error: Unable to contact slurm controller")})
    entry = Slurm().query(["7"])["7"]
    assert entry.phase == "unknown"
    assert "Unable to contact slurm controller" in entry.reason
    assert entry.alive is None
    _said(monkeypatch, {})
    assert Slurm().query(["7"])["7"].reason == "squeue: it is not on PATH"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:07", 7), ("1:02:03", 3723), ("2-00:00:01", 172801), ("INVALID", None)]
)
def test_slurms_times_are_seconds(text: str, seconds: float | None) -> None:
    assert elapsed_seconds(text) == seconds
    assert entry_of("RUNNING", "None", "n1", text, "0").elapsed_s == seconds


def test_a_scheduler_is_asked_for_all_jobs_at_once_and_not_too_often(tmp_path: Path) -> None:
    now = [100.0]
    said = Scheduler({"1": Entry("running"), "2": Entry("waiting")})
    queue = Queue(every_s=10, clock=lambda: now[0], schedulers=lambda *_: said)
    runs = [_write_run(tmp_path / name, [_job(name, "train")], {}).path for name in ("1", "2")]
    states = [run.steps[0].state for run in read_runs(runs, queue)]
    assert states == ["running", "waiting"]
    assert said.asked == [["1", "2"]]
    now[0] += 9.9
    read_runs(runs, queue)
    assert len(said.asked) == 1
    now[0] += 0.1
    said.entries["1"] = Entry("ended", "FAILED")
    assert read_runs(runs, queue)[0].steps[0].state == "failed"
    now[0] += 10
    read_runs(runs, queue)
    assert said.asked[1:] == [["1", "2"], ["2"]]  # one that has ended is not asked for again


def _states(run: RunFolder, entries: Mapping[str, Entry]) -> dict[str, tuple[str, str | None]]:
    state = read_run(run.path, queue=Queue(schedulers=lambda *_: Scheduler(entries)))
    return {step.step: (step.state, step.error) for step in state.steps}


def test_a_job_that_is_gone_without_a_result_has_failed_and_those_below_it_were_skipped(tmp_path: Path) -> None:
    jobs = [_job("1", "train"), _job("2", "quantize")]
    run = _write_run(tmp_path / "r", jobs, {"quantize": ("train",)})
    gone = {"1": Entry("ended", "NODE_FAIL", "", "n2"), "2": Entry("ended", "CANCELLED", "DependencyNeverSatisfied")}
    assert _states(run, gone) == {
        "train": (
            "failed",
            "the job is gone: slurm job 1 ended as NODE_FAIL without a result; see /r/1_0_log.out",
        ),
        "quantize": (
            "skipped",
            "train failed: the job is gone: slurm job 1 ended as NODE_FAIL without a result; see /r/1_0_log.out",
        ),
    }
    assert _states(run, {})["train"][0] == "failed"


def test_a_requeued_job_waits_whatever_its_earlier_life_has_left(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "r", [_job("1", "train")], {})
    run.step("train").write_result(
        Result("train", "train", "failed", "2026-01-31T12:00:00Z", error="stopped by SIGTERM")
    )
    waiting = {"1": Entry("waiting", "PENDING", "BeginTime", restarts=1)}
    assert _states(run, waiting) == {"train": ("waiting", "restart 1, BeginTime")}
    assert _states(run, {"1": Entry("ended", "FAILED")}) == {"train": ("failed", "stopped by SIGTERM")}


def test_a_run_is_unknown_while_its_scheduler_gives_no_answer(tmp_path: Path) -> None:
    run = _write_run(tmp_path / "r", [_job("1", "train")], {})
    state, error = _states(run, {"1": Entry("unknown", reason="squeue: Unable to contact slurm controller")})["train"]
    assert state == "unknown"
    assert error == ("slurm job 1 cannot be checked now (squeue: Unable to contact slurm controller); ask again")


def test_a_long_epoch_shows_how_far_it_has_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _write_run(tmp_path / "r", [_job("1", "train")], {})
    step = run.step("train")
    write_json(step.config_json, {"training": {"epochs": 10}})
    write_json(step.progress_json, {"epoch": 0.25, "note": "loss 1.9", "eta_s": 390.0})
    entries = {"1": Entry("running", "RUNNING", "", "n[1-2]", 61.0)}

    def shown() -> list[str]:
        return (
            status_table([read_run(run.path, queue=Queue(schedulers=lambda *_: Scheduler(entries)))])
            .splitlines()[2]
            .split()
        )

    assert shown() == ["r", "train", "running", "n[1-2]", "0.2/10", "–", "–", "0:01:01", "0:06:30"]
    append_json_line(step.metrics_jsonl, {"epoch": 2, "train_loss": 1.5, "val_loss": 1.7, "elapsed_s": 80.0})
    assert shown() == ["r", "train", "running", "n[1-2]", "2/10", "1.500", "1.700", "–", "0:01:01", "0:10:40"]
    entries["1"] = Entry("ended", "COMPLETED")
    step.write_result(Result("train", "train", "completed", "2026-01-31T12:00:00Z"))
    assert "2/10" in shown()


def test_sbatch_is_not_told_of_the_allocation_around_it() -> None:
    around = {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "300", "SLURM_CONF": "/c", "SBATCH_ACCOUNT": "road", "PATH": ""}
    assert submit_command("f.sh", around) == [
        *("env", "--unset=SLURM_JOB_ID", "--unset=SLURM_MEM_PER_CPU", "sbatch", "f.sh")
    ]
    assert submit_command("f.sh", {"SLURM_HINT": "nomultithread"}) == ["sbatch", "f.sh"], "a user's own wish"
