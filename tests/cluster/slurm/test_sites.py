"""What sites and users do around a job of a real Slurm: exports, uneven tasks, outer allocations, arrays, srun's no."""

from __future__ import annotations

import sys
from pathlib import Path

from segdist.run.folder import RunFolder

from .conftest import ROOT, SMALL, Cluster, until

ONE = ("--epochs", "1")


def _script(cluster: Cluster, *dropped: str) -> str:
    """slurm/train.sbatch with this interpreter, as a job without the user's environment has no PYTHON."""
    lines = (ROOT / "slurm" / "train.sbatch").read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not any(word in line for word in dropped))
    script = cluster.folder / "train.sbatch"
    script.write_text(text.replace(".venv/bin/python", sys.executable))
    return str(script)


def test_a_job_without_the_users_environment_trains_on_two_nodes(cluster: Cluster) -> None:
    run, log = RunFolder(cluster.folder / "r"), cluster.folder / "job.log"
    script = _script(cluster)
    assert cluster.sbatch("--export=NONE", f"--output={log}", script, "--run", str(run.path), *cluster.data, *SMALL,
                          *ONE) == 0, log.read_text()  # fmt: skip
    assert run.step("train").read_result().machine["hosts"] == ["n1", "n2"]


def test_tasks_that_cannot_be_divided_are_refused_and_a_number_on_the_command_line_helps(cluster: Cluster) -> None:
    run, log = RunFolder(cluster.folder / "r"), cluster.folder / "job.log"
    script = _script(cluster, "--ntasks-per-node", "--nodes")
    tasks = (script, "--run", str(run.path), *cluster.data, *SMALL, *ONE)
    assert cluster.sbatch("-N4", "-n7", f"--output={log}", *tasks) == 2
    said = "SLURM_TASKS_PER_NODE=2(x3),1: the nodes of job"
    assert f"error: {said}" in log.read_text()
    assert run.step("train").read_result().error.startswith(said)
    Path(script).write_text(Path(script).read_text().replace("segdist.launch", "segdist.launch --ranks-per-node 1"))
    assert cluster.sbatch("-N4", "-n7", f"--output={log}", *tasks) == 0, log.read_text()
    assert run.step("train").read_result().machine["ranks"] == 4


def test_a_job_submitted_from_within_an_allocation_is_not_told_of_its_tasks_and_memory(cluster: Cluster) -> None:
    run = RunFolder(cluster.folder / "inner")
    options = ("--nodes", "2", "--options", "mem=500", "exclusive", "--wait")
    done = cluster.call(
        "salloc", "--quiet", "-n1", "--mem-per-cpu=300",
        sys.executable, "-m", "jobs.submit", "train", "--run", str(run.path), *cluster.data, *SMALL, *ONE, *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.step("train").read_result().machine["ranks"] == 2


def test_an_array_on_one_run_folder_has_one_winner_whose_files_are_left_alone(cluster: Cluster) -> None:
    run, log = RunFolder(cluster.folder / "f"), cluster.folder / "job.%a.log"
    done = cluster.call(
        "sbatch", "--parsable", "--array=0-1", "--nodes=1", f"--output={log}", "slurm/train.sbatch",
        "--run", str(run.path), *cluster.data, *SMALL, "--epochs", "3",
    )  # fmt: skip
    array = done.stdout.strip()
    states: list[str] = []

    def ended() -> bool:
        states[:] = [cluster.queue(f"{array}_{index}", "State") for index in (0, 1)]
        return all(state in ("COMPLETED", "FAILED") for state in states)

    until(ended, 120, "both elements have ended")
    assert sorted(states) == ["COMPLETED", "FAILED"]
    winner = states.index("COMPLETED")
    refused = (cluster.folder / f"job.{1 - winner}.log").read_text()
    assert f"{run.step('train').logs}: " in refused
    assert f"job {array}_{winner} of slurm (restart 0) on n" in refused  # is at work on it, has just taken it, is done
    assert "\nerror: " in f"\n{refused}"
    assert "Traceback" not in refused
    result = run.step("train").read_result()
    assert (result.status, result.job["id"]) == ("completed", f"{array}_{winner}")
    text = run.step("train").rank_log(0).read_text()
    assert [f"epoch {number}/3" in text for number in (1, 2, 3)] == [True] * 3
    assert [path.name for path in run.step("train").logs.iterdir()] == ["rank0.log"]


def test_what_srun_refuses_is_the_jobs_error(cluster: Cluster) -> None:
    run = RunFolder(cluster.folder / "r")
    done = cluster.call(
        "salloc", "--quiet", "-N1", "-n1", sys.executable, "-m", "segdist.launch", "--ranks-per-node", "5", "train",
        "--run", str(run.path), *cluster.data, *SMALL, "--batch", "8",
    )  # fmt: skip
    assert done.returncode == 1
    said = "rank 0 ended with exit code 1: srun: Unable to create step for job"
    assert run.step("train").read_result().error.startswith(said)
    assert f"error: {said}" in done.stderr


def test_a_warning_that_comes_at_once_saves_and_says_that_the_limit_is_too_short(cluster: Cluster) -> None:
    run, log = RunFolder(cluster.folder / "r"), cluster.folder / "job.log"
    done = cluster.call(
        "sbatch", "--parsable", "--nodes=1", "--time=1", f"--output={log}", "slurm/train.sbatch",
        "--run", str(run.path), *cluster.data, *SMALL, "--epochs", "5000",
    )  # fmt: skip
    until(lambda: cluster.queue(done.stdout.strip(), "RestartCnt") == "1", 100, "it is requeued")
    text = log.read_text()
    assert "its margin is longer than half of the limit: ask for more --time, or give sbatch --signal=B:USR1@30" in text
    assert "is requeued for restart 1 of 10" in text
