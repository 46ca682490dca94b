"""Jobs on a real Slurm of four nodes: submit, follow, chain, sweep, collect."""

from __future__ import annotations

import json
import re

import pytest

from segdist.run.folder import RunFolder
from segdist.run.result import Result

from .conftest import MEASURED, ROOT, SMALL, TRUTH_S, Cluster, until


def _shape(value: object) -> object:
    """The keys of nested dicts: what a schema is about."""
    return {key: _shape(one) for key, one in sorted(value.items())} if isinstance(value, dict) else None


def test_training_on_four_nodes_leaves_the_same_result_as_on_one_machine(cluster: Cluster) -> None:
    run = cluster.submit("train", "four", "--nodes", "4", "--epochs", "1", "--wait")
    result = json.loads(run.step("train").result_json.read_text())
    assert result["status"] == "completed"
    assert result["machine"]["hosts"] == ["n1", "n2", "n3", "n4"]
    assert result["machine"]["ranks"] == 4
    assert result["job"] == {"cluster": "slurm", "id": cluster.job(run), "restart": "0"}
    assert len(list(run.step("train").logs.glob("rank*.log"))) == 4

    here = RunFolder(cluster.folder / "here")
    options = ("--cluster", "local", "--nodes", "4", "--epochs", "1", "--wait")
    done = cluster.python("jobs.submit", "train", "--run", str(here.path), *cluster.data, *SMALL, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    local = json.loads(here.step("train").result_json.read_text())
    assert _shape({**local, "job": {}}) == _shape({**result, "job": {}})

    row = cluster.status(run)["train"]
    assert (row["state"], row["scheduler_state"], row["nodes"], row["restarts"]) == (
        "completed",
        "COMPLETED",
        "n[1-4]",
        0,
    )
    log = cluster.python("jobs.logs", str(run.path), "--rank", "3")
    assert log.returncode == 0

    command = json.loads(run.run_json.read_text())["steps"][0]["command"]  # as it was printed; and from any folder
    again = cluster.call("salloc", "--quiet", "--nodes=2", *command[:3], *command[7:], "--overwrite", cwd="/")
    assert again.returncode == 0, again.stderr
    assert run.step("train").read_result().machine["hosts"] == ["n1", "n2"]


def test_a_pipeline_is_a_chain_of_jobs_with_its_evaluations_side_by_side(cluster: Cluster) -> None:
    sizes = ("--sizes", "64x128", "32x64")
    run = cluster.submit("pipeline", "all", "--nodes", "2", "--epochs", "1", *MEASURED[2:], *sizes)
    waiting = cluster.status(run)
    assert waiting["quantize"]["state"] == "waiting"
    assert waiting["quantize"]["reason"] in ("Dependency", "None", None)
    followed = cluster.python("jobs.logs", str(run.path), "--follow")
    assert followed.returncode == 0
    assert "── evaluate int8-64x128 ──" in followed.stdout
    assert set(cluster.states(run).values()) == {"completed"}
    steps = ("evaluate/fp32-64x128", "evaluate/fp32-32x64", "quantize", "evaluate/int8-64x128", "evaluate/int8-32x64")
    assert set(cluster.states(run)) == {"train", *steps, "report"}
    first, second = (cluster.queue(cluster.job(run, step), "Dependency") for step in steps[:2])
    assert first == second  # both had waited for the training alone
    assert "int8" in run.report_html.read_text()
    rows = json.loads(cluster.python("jobs.collect", str(run.path), "--format", "json").stdout)
    assert sorted((row["precision"], row["size"]) for row in rows) == [
        ("fp32", "32x64"), ("fp32", "64x128"), ("int8", "32x64"), ("int8", "64x128"),
    ]  # fmt: skip


def test_a_failed_step_ends_those_below_it_in_seconds(cluster: Cluster) -> None:
    run = cluster.submit("pipeline", "broken", "--epochs", "1", *MEASURED, "--lr", "1e30")
    until(lambda: cluster.status(run)["train"]["state"] == "failed", 90, "the training fails")
    until(lambda: cluster.states(run)["evaluate/int8"] == "skipped", 10, "what is below it is skipped")
    row = cluster.status(run)["quantize"]
    assert row["state"] == "skipped"
    assert "--lr 1e+30 may be too large" in row["error"]
    until(lambda: cluster.states(run)["report"] == "completed", TRUTH_S, "the report is written")
    assert cluster.queue(cluster.job(run, "quantize"), "State") == "CANCELLED"
    assert "may be too large" in run.report_html.read_text()


def test_a_sweep_is_an_array_that_keeps_to_its_limit(cluster: Cluster) -> None:
    options = ("--sweep", "lr=0.01,0.02", "--sweep", "width=4,8", "--max-parallel", "2", "--epochs", "1")
    folder = cluster.submit("train", "sweep", *options, small=SMALL[2:]).path
    runs = [RunFolder(folder / f"lr={lr},width={width}") for lr in ("0.01", "0.02") for width in (4, 8)]
    array = cluster.job(runs[0]).partition("_")[0]
    assert [cluster.job(run) for run in runs] == [f"{array}_{k}" for k in range(4)]
    most = 0

    def ended() -> bool:
        nonlocal most
        states = [cluster.queue(f"{array}_{k}", "State") for k in range(4)]
        most = max(most, states.count("RUNNING"))
        return all(state in ("COMPLETED", "FAILED") for state in states)

    until(ended, 200, "the sweep ends")
    assert most == 2
    for run, (lr, width) in zip(runs, ((0.01, 4), (0.01, 8), (0.02, 4), (0.02, 8))):
        config = json.loads(run.step("train").config_json.read_text())
        assert (config["training"]["lr"], config["net"]["width"]) == (lr, width)
        assert run.step("train").read_result().status == "completed"
    table = cluster.python("jobs.status", str(folder)).stdout
    assert table.count("completed") == 4


def _srun_lines(text: str, run: RunFolder) -> list[str]:
    return [
        line.replace(str(run.path), "RUN") for line in text.splitlines() if line.startswith("segdist.launch: $ srun")
    ]


def test_a_script_by_hand_starts_the_very_same_rank_command(cluster: Cluster) -> None:
    submitted = cluster.submit("train", "submitted", "--nodes", "2", "--epochs", "1", "--wait")
    by_hand = RunFolder(cluster.folder / "by_hand")
    by_hand.step("train").path.mkdir(parents=True)
    config = json.loads(submitted.step("train").config_json.read_text())
    by_hand.step("train").config_json.write_text(json.dumps({**config, "run": str(by_hand.path)}))
    log = cluster.folder / "job.log"
    code = cluster.sbatch(
        "--nodes=2", f"--output={log}", "slurm/train.sbatch",
        "--config", str(by_hand.step("train").config_json),
    )  # fmt: skip
    assert code == 0, log.read_text()
    ours = _srun_lines((submitted.step("train").logs / "launch.log").read_text(), submitted)
    theirs = _srun_lines(log.read_text(), by_hand)
    assert len(ours) == 1
    assert ours == theirs
    assert by_hand.step("train").read_result().status == "completed"
    assert "epoch 1/1" in log.read_text()  # rank 0 is shown


def test_options_of_sbatch_win_and_its_exit_code_is_the_tasks(cluster: Cluster) -> None:
    log = cluster.folder / "job.log"
    script = (f"--output={log}", "--nodes=3", "--ntasks-per-node=2", "slurm/train.sbatch")
    run = ("--run", str(cluster.folder / "r"), *cluster.data, *SMALL)
    assert (
        cluster.sbatch(*script, *run, "--batch", "4") == 2
    )  # a batch of 4 is too small for the 6 ranks that were asked for
    assert "--batch 4 on 8 images and 6 ranks" in log.read_text()
    result = RunFolder(cluster.folder / "r").step("train").read_result()
    assert result.status == "failed"
    assert "6 ranks" in result.error


@pytest.mark.parametrize("how", ["import error", "exception", "full disk"])
def test_the_exit_code_is_honest_down_to_the_jobs_state(cluster: Cluster, how: str, lab) -> None:
    folder = lab.small_disk if how == "full disk" else cluster.folder
    run = RunFolder(folder / how.replace(" ", "_"))
    more = {}
    if how == "import error":
        broken = cluster.folder / "broken"
        broken.mkdir()
        (broken / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')\n")
        more = {"PYTHONPATH": f"{broken}:{ROOT}"}
    width = {"full disk": "32"}.get(how, "4")
    lr = {"exception": "1e30"}.get(how, "0.01")
    options = ("--width", width, "--lr", lr, "--epochs", "1")
    done = cluster.python(
        "jobs.submit", "train", "--run", str(run.path), *cluster.data, *SMALL[2:], *options, "--wait", **more
    )
    assert done.returncode == 1, done.stdout + done.stderr
    row = cluster.status(run)["train"]
    assert row["state"] == "failed"
    said = {"import error": "libtorch_cpu.so", "exception": "may be too large", "full disk": "No space left"}[how]
    assert said in row["error"]
    assert cluster.queue(cluster.job(run), "State") == "FAILED"
    assert cluster.lab.output("scontrol", "--oneliner", "show", "job", cluster.job(run)).count("ExitCode=1:0") == 1


def test_what_is_cancelled_ends_everywhere_and_says_by_whom(cluster: Cluster) -> None:
    run = cluster.submit("pipeline", "c", "--nodes", "2", "--epochs", "500", *MEASURED)
    until(lambda: (run.step("train").metrics_jsonl).exists(), 90, "the training is at work")
    assert cluster.status(run)["train"]["state"] == "running"
    done = cluster.python("jobs.cancel", str(run.path))
    assert done.returncode == 0, done.stderr
    assert re.search(r"train: failed: cancelled by \w+ at ", done.stdout)
    states = cluster.states(run)
    assert states == {
        "train": "failed",
        "evaluate/fp32": "skipped",
        "quantize": "skipped",
        "evaluate/int8": "skipped",
        "report": "skipped",
    }
    assert cluster.ranks(cluster.job(run)) == []
    again = cluster.python("jobs.cancel", str(run.path))
    assert again.returncode == 0
    assert "nothing to cancel" in again.stdout


def test_mixed_runs_are_collected_into_one_table(cluster: Cluster) -> None:
    running = cluster.submit("train", "running", "--epochs", "500")
    failed = cluster.submit("train", "failed", "--epochs", "1", "--lr", "1e30")
    skipped = RunFolder(cluster.folder / "skipped")
    skipped.step("evaluate").write_result(
        Result("evaluate", "fp32", "skipped", "2026-01-31T12:00:00Z", error="train failed: no disk")
    )
    half = RunFolder(cluster.folder / "half_copied")
    half.step("train").path.mkdir(parents=True)
    half.step("train").result_json.write_text('{"schema_version": 1, "task": "tr')
    until(lambda: cluster.states(failed)["train"] == "failed", 90, "one has failed")
    until(lambda: cluster.states(running)["train"] == "running", 90, "one is running")
    done = cluster.python("jobs.collect", str(cluster.folder), "--format", "json")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    states = {row["run"]: row["status"] for row in json.loads(done.stdout)}
    assert states == {"running": "running", "failed": "failed", "skipped": "skipped", "half_copied": "unknown"}
    table = cluster.python("jobs.collect", str(cluster.folder))
    assert table.returncode == 0
    assert len([line for line in table.stdout.splitlines() if line.startswith(tuple(states))]) == 4
