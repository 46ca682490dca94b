"""What happens to a training on a real Slurm when things die: the run stays readable, and its status is the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from segdist.run.folder import RunFolder
from segdist.run.result import read_metrics

from .conftest import MEASURED, TRUTH_S, Cluster, epochs, until
from .lab import SlurmLab

EPOCHS = 60


def _start(cluster: Cluster, name: str, *options: str, task: str = "train", count: int = EPOCHS) -> RunFolder:
    """Submit a training, and wait until it has saved at least one epoch."""
    run = cluster.submit(task, name, "--epochs", str(count), *options)
    until(lambda: (run.step("train").checkpoints / "last.pt").exists(), 120, "an epoch is saved")
    return run


def _assert_whole(cluster: Cluster, run: RunFolder, restarts: int, count: int = EPOCHS) -> None:
    """The training is completed, with every epoch once, in order, and the status says so."""
    result = run.step("train").read_result()
    assert result.status == "completed", result.error
    assert epochs(run) == list(range(1, count + 1))
    assert run.model_pt.exists()
    assert "miou_pct" in result.metrics
    row = cluster.status(run)["train"]
    assert (row["state"], row["restarts"]) == ("completed", restarts)


def _completes(cluster: Cluster, run: RunFolder, seconds: float) -> None:
    until(lambda: cluster.queue(cluster.job(run), "State") in ("COMPLETED", "FAILED"), seconds, "the job ends")


@pytest.fixture(scope="module")
def pace(lab: SlurmLab, tmp_path_factory: pytest.TempPathFactory, streets: Path) -> float:
    """Epochs a second that two nodes do here, so that a training can be made as long as a test needs it."""
    cluster = Cluster(lab, tmp_path_factory.mktemp("pace"), streets)
    run = cluster.submit("train", "probe", "--epochs", "20", "--nodes", "2", "--wait")
    return 20 / float(read_metrics(run.step("train").metrics_jsonl)[-1]["elapsed_s"])


def test_scancel_of_a_running_step_is_a_failure_with_its_reason(cluster: Cluster) -> None:
    run = _start(cluster, "scancel", "--nodes", "2")
    cluster.lab.output("scancel", cluster.job(run))
    took = until(lambda: cluster.status(run)["train"]["state"] == "failed", TRUTH_S, "the status says failed")
    assert took < TRUTH_S
    assert "SIGTERM" in cluster.status(run)["train"]["error"]
    assert epochs(run) == list(range(1, len(epochs(run)) + 1))
    until(lambda: cluster.ranks(cluster.job(run)) == [], TRUTH_S, "no rank is left")


def test_a_rank_killed_with_9_ends_the_job_and_is_named(cluster: Cluster) -> None:
    run = _start(cluster, "kill9", "--nodes", "4", *MEASURED, task="pipeline")
    cluster.kill(cluster.job(run), rank=2)
    named = "rank 2 was killed by SIGKILL"
    until(lambda: named in (cluster.status(run)["train"]["error"] or ""), TRUTH_S, "the status names the rank")
    assert cluster.states(run)["train"] == "failed"
    until(lambda: cluster.queue(cluster.job(run), "State") == "FAILED", TRUTH_S, "the job has failed")
    assert "ExitCode=137:0" in cluster.lab.output("scontrol", "--oneliner", "show", "job", cluster.job(run))
    assert cluster.states(run)["quantize"] == "skipped"
    assert cluster.ranks(cluster.job(run)) == []


def test_a_job_signalled_before_its_limit_saves_requeues_itself_and_goes_on(cluster: Cluster) -> None:
    run = _start(cluster, "usr1", "--nodes", "2")
    before = len(epochs(run))
    cluster.lab.output("scancel", "--batch", "--signal=USR1", cluster.job(run))
    until(lambda: cluster.status(run)["train"]["restarts"] == 1, TRUTH_S, "the status shows the restart")
    waiting = cluster.status(run)["train"]
    assert waiting["state"] in ("waiting", "running")
    assert "restart 1" in waiting["error"]
    _completes(cluster, run, 150)
    _assert_whole(cluster, run, restarts=1)
    assert f"epoch {before}/{EPOCHS}" not in (run.step("train").logs / "rank0.log").read_text()  # not done twice


def test_restarts_are_bounded(cluster: Cluster) -> None:
    run = _start(cluster, "bounded", "--max-restarts", "0")
    cluster.lab.output("scancel", "--batch", "--signal=USR1", cluster.job(run))
    until(lambda: cluster.status(run)["train"]["state"] == "failed", TRUTH_S, "the status says failed")
    assert "restarted 0 times already; raise --max-restarts 0" in cluster.status(run)["train"]["error"]


def test_a_node_powered_off_in_mid_epoch_costs_what_was_not_saved(cluster: Cluster) -> None:
    run = _start(cluster, "power", "--nodes", "2")
    job = cluster.job(run)
    lost = cluster.queue(job, "NodeList")
    assert lost == "n[1-2]"
    cluster.lab.power_off("n2")
    until(lambda: cluster.queue(job, "RestartCnt") == "1", 90, "Slurm requeues the job")
    _completes(cluster, run, 180)
    assert "n2" not in cluster.status(run)["train"]["nodes"]
    _assert_whole(cluster, run, restarts=1)


def test_a_job_that_reaches_its_walltime_ends_complete(cluster: Cluster, pace: float) -> None:
    count = int(80 * pace)  # more than fits into a minute
    profile = cluster.folder / "short.toml"
    profile.write_text("signal_before_s = 10\n")  # Slurm sends it up to 30 s earlier, and never at the very start
    run = cluster.submit(
        "train", "walltime", "--profile", str(profile), "--walltime", "00:01:00", "--epochs", str(count),
        "--nodes", "2",
    )  # fmt: skip
    _completes(cluster, run, 280)
    row = cluster.status(run)["train"]
    assert row["restarts"] >= 1, row
    _assert_whole(cluster, run, restarts=row["restarts"], count=count)


def test_of_two_copies_of_a_job_the_older_one_stops_writing(cluster: Cluster, pace: float) -> None:
    count = int(60 * pace)  # so that the older copy is still at work when the newer one starts
    run = _start(cluster, "cut", "--nodes", "1", count=count)
    job = cluster.job(run)
    (old,) = cluster.ranks(job, 0)
    cluster.lab.cut(cluster.queue(job, "NodeList"))
    until(lambda: cluster.queue(job, "RestartCnt") == "1", 90, "Slurm requeues the job")
    until(lambda: old not in cluster.ranks(job), 90, "the copy on the node that is cut off has noticed")
    _completes(cluster, run, 180)
    _assert_whole(cluster, run, restarts=1, count=count)
    assert "is held by job" in (run.step("train").logs / "rank0.log.1").read_text()  # what the older one said
    assert run.step("train").read_result().job == {"cluster": "slurm", "id": job, "restart": "1"}
