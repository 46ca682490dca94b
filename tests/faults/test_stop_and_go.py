"""Asked to stop, restarted, replaced: what a training does, and that it ends as the undisturbed one."""

import json
import shutil

import pytest

from segdist.run.lease_owner import owner_path
from segdist.run.result import read_metrics
from segdist.system.cpu import read_cpu
from segdist.training.checkpoint_file import read_checkpoint

from .harness import STEPS, assert_same, same

JOB = {"SEGDIST_JOB_CLUSTER": "slurm", "SEGDIST_JOB_ID": "7"}


def restarted(count):
    return {**JOB, "SEGDIST_RESTART": str(count)}


@pytest.mark.parametrize(("name", "rank"), [("SIGUSR1", 1), ("SIGTERM", 0), ("SIGINT", 1)])
def test_a_signal_to_one_rank_stops_all_at_the_same_step_and_the_next_start_goes_on(name, rank, training, undisturbed):
    run = training()
    start = run.start(faults={rank: [{"place": "agree", "count": 6, "act": "stop", "with": name}]})
    assert start.codes() == [75, 75], start.log(0) + start.log(1)
    step = run.run.step("train")
    assert not step.result_json.exists()
    assert not owner_path(step).exists()
    done = read_checkpoint(step.checkpoints / "last.pt")["step"]
    assert done == 6
    last = start.log(0).splitlines()[-1]
    assert last.startswith(f"stopped on {name} after step {done} of {STEPS} (epoch 2): saved ")
    assert last.endswith("the same command goes on from there; exit code 75: to be continued")
    again = run.finish()
    assert f"last.pt: step {done} (epoch 2, {done - 4} of 4 steps done)" in again.log(0)
    assert_same(run.left(), undisturbed())


@pytest.mark.skipif(not read_cpu().has_bf16, reason="this CPU multiplies no bf16: neither AVX512_BF16 nor AMX")
def test_a_training_in_bf16_through_ipex_goes_on_to_the_last_bit(training, undisturbed):
    bf16 = ("--ipex", "on", "--precision", "bf16")
    run = training("run", 2, *bf16)
    start = run.start(faults={0: [{"place": "step", "count": 7}]})
    assert start.wait(0) == -9
    start.kill()
    again = run.finish()
    assert "precision: bf16 (asked for; ipex.optimize)" in again.log()
    assert "goes on from" in again.log()
    assert_same(run.left(), undisturbed(2, *bf16))


def test_a_signal_in_the_validation_loses_no_step(training, undisturbed):
    run = training()
    # 4 images of the epoch, then the validation: the next one is loaded meanwhile, and the one after that not any more
    image = {"place": "image", "count": 4 + 1, "act": "stop", "with": "SIGUSR1"}
    start = run.start(faults={0: [image]})
    assert start.codes() == [75, 75], start.log(0)
    assert run.finish().log(0).count("epoch 1/3: loss") == 1  # and not a line of progress
    assert_same(run.left(), undisturbed())


def test_on_another_number_of_ranks_it_goes_on_with_the_same_samples(training, undisturbed):
    run = training()
    start = run.start(faults={0: [{"place": "agree", "count": 6, "act": "stop", "with": "SIGUSR1"}]})
    assert start.codes() == [75, 75]
    run.world = 1
    run.finish()
    steps, others = run.left()["steps"], undisturbed()["steps"]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in steps] == pytest.approx([row["loss"] for row in others], rel=0.05)


def test_a_checkpoint_of_another_run_is_refused_by_the_option_that_differs(training):
    run = training("run", 1)
    start = run.start(faults={0: [{"place": "agree", "count": 3, "act": "stop", "with": "SIGUSR1"}]})
    assert start.codes() == [75]
    for option, value, said in (
        ("--seed", "1", "--seed was 0 and is 1"),
        ("--batch", "4", "--batch was 2 and is 4"),
        ("--crop", "64x64", "--crop was 32x64 and is 64x64"),
        ("--width", "8", "--width was 4 and is 8"),
        ("--labels", "cityscapes19", "--labels was street13 "),
    ):
        refused = run.start(option, value)
        assert refused.codes() == [2]
        assert f"train: its checkpoints are of another training: {said}" in refused.log()
        assert "give the same, or --overwrite to start afresh" in refused.log()
        assert not run.run.step("train").result_json.exists()
    assert run.start("--checkpoint-minutes", "5", "--keep", "3").codes() == [0]


def test_rows_beyond_the_checkpoint_are_dropped(training, undisturbed):
    run = training()
    start = run.start(faults={0: [{"place": "step", "count": 10}]})
    assert start.wait(0) == -9
    start.kill()
    step = run.run.step("train")
    with step.metrics_jsonl.open("a") as file:
        file.write('{"epoch": 3, "step": 12}\n{"epo')
    with step.steps_jsonl.open("a") as file:
        file.write('{"step": 9, "loss": 0.5}\n{"st')
    run.finish()
    assert_same(run.left(), undisturbed())


def test_a_truncated_newest_checkpoint_costs_its_steps_and_nothing_else(training, undisturbed):
    run = training()
    start = run.start(faults={0: [{"place": "step", "count": 10}]})
    assert start.wait(0) == -9
    start.kill()
    last = run.run.step("train").checkpoints / "last.pt"
    before = read_checkpoint(last)["step"] - 1
    last.write_bytes(last.read_bytes()[:-1000])
    again = run.finish()
    assert f"{last}: is damaged" in again.log(0)
    assert f"step-{before:08d}.pt: step {before} (epoch" in again.log(0)
    assert_same(run.left(), undisturbed())


def test_overwrite_starts_afresh_but_a_restarted_job_goes_on_and_a_completed_one_is_done(training, undisturbed):
    run = training()
    start = run.start("--overwrite", faults={1: [{"place": "step", "count": 6}]}, **JOB)
    assert start.wait(1) == -9
    start.codes()
    again = run.finish("--overwrite", **restarted(1))
    assert "goes on from" in again.log(0)
    assert_same(run.left(), undisturbed())
    result = run.run.step("train").result_json.read_text()
    assert json.loads(result)["job"] == {"cluster": "slurm", "id": "7", "restart": "1"}
    done = run.start("--overwrite", **restarted(2))
    assert done.codes() == [0, 0]
    assert "this job has completed the step already" in done.log(0)
    assert run.run.step("train").result_json.read_text() == result
    afresh = run.finish("--overwrite", SEGDIST_JOB_ID="8")
    assert "goes on from" not in afresh.log(0)
    assert [row["epoch"] for row in read_metrics(run.run.step("train").metrics_jsonl)] == [1, 2, 3]


@pytest.mark.parametrize(
    "command",
    [("segdist.launch", "--ranks-per-node", "2", "train"),
     ("jobs.submit", "train", "--cluster", "local", "--ranks-per-node", "2", "--wait")],
    ids=["launch", "submit"],
)  # fmt: skip
def test_the_same_command_goes_on_after_a_failure(command, training, undisturbed, run_python):
    run = training()
    start = run.start(faults={1: [{"place": "step", "count": 6}]})
    assert start.wait(1) == -9
    start.codes()
    assert run.run.step("train").read_result().status == "failed"
    again = run_python(*command, "--run", run.path, "--data", run.data, *run.options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "goes on from" in (run.run.step("train").logs / "rank0.log").read_text()
    assert_same(run.left(), undisturbed())


def test_an_old_copy_of_a_restarted_job_stops_and_writes_nothing_more(training, undisturbed):
    """As after a partition: the old copy is frozen, the new one starts and ends, and then the old one wakes."""
    run = training()
    old = run.start(faults={0: [{"place": "agree", "count": 6, "act": "hang"}]}, **restarted(0))
    old.await_text("epoch 1/3")
    old.await_frozen(0)
    new = run.finish(**restarted(1))
    assert "taken over from job 7 of slurm (restart 0)" in new.log(0)
    left, result = run.left(), run.run.step("train").result_json.read_text()
    old.wake(0)
    assert old.codes() == [1, 1]
    assert "writes nothing more there" in old.log(0)
    assert run.run.step("train").result_json.read_text() == result
    assert_same(left, run.left())
    assert_same(left, undisturbed())


def test_a_second_job_on_the_same_run_is_refused_and_the_first_is_not_disturbed(training, undisturbed):
    run = training()
    first = run.start(faults={0: [{"place": "agree", "count": 6, "act": "hang"}]}, **JOB)
    first.await_text("epoch 1/3")
    first.await_frozen(0)
    second = run.start("--overwrite", SEGDIST_JOB_ID="8")
    assert second.codes() == [2, 2]
    assert "job 7 of slurm (restart 0) on" in second.log(0)
    assert "is at work on it; wait for it, cancel it or give another --run" in second.log(0)
    assert not run.run.step("train").result_json.exists()
    first.wake(0)
    assert first.codes() == [0, 0]
    assert_same(run.left(), undisturbed())


def test_a_run_folder_that_vanishes_ends_all_ranks(training):
    run = training()
    start = run.start(faults={0: [{"place": "agree", "count": 6, "act": "hang"}]})
    start.await_text("epoch 1/3")
    start.await_frozen(0)
    shutil.rmtree(run.path)
    start.wake(0)
    assert start.codes() == [1, 1]
    assert "has lost its holder.json (removed, or the folder with it)" in start.log(0)
    assert not run.path.exists()


def test_ranks_and_steps_compare_to_the_last_bit(undisturbed):
    other = json.loads(json.dumps(undisturbed()["steps"]))
    assert same(undisturbed()["steps"], other)
    other[3]["loss"] += 1e-15
    assert not same(undisturbed()["steps"], other)
