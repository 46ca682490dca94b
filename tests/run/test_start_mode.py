"""How a step starts, from what its folder holds, what is asked for, and whether the job was restarted."""

import dataclasses

import pytest

from segdist.config import ConfigError, EvaluateConfig, QuantizeConfig, TrainConfig, TrainingConfig
from segdist.run.folder import RunFolder
from segdist.run.result import Result, job_of
from segdist.run.start_mode import choose_start_mode, note_fresh_start

JOB = {"SEGDIST_JOB_CLUSTER": "slurm", "SEGDIST_JOB_ID": "12"}
OTHER = {"SEGDIST_JOB_CLUSTER": "slurm", "SEGDIST_JOB_ID": "11"}
RESTARTED = {**JOB, "SEGDIST_RESTART": "1"}
NEVER = TrainingConfig(resume="never")


@pytest.fixture
def folder(tmp_path):
    """Make a step that holds a result and checkpoints, or not."""

    def make(status=None, job=JOB, checkpoints=False, task="train", begun=None, metrics=None):
        step = RunFolder(tmp_path).step(task)
        step.checkpoints.mkdir(parents=True)
        if status is not None:
            step.write_result(
                Result(task, task, status, "2026-01-31T12:00:00Z", job=job_of(job), metrics=metrics or {})
            )
        if begun is not None:
            note_fresh_start(step, begun)
        if checkpoints:
            (step.checkpoints / "step-00000004.pt").write_bytes(b"")
        return step

    return make


@pytest.mark.parametrize(
    ("status", "checkpoints", "config", "environ", "start"),
    [
        (None, False, TrainConfig(), JOB, "fresh"),
        (None, True, TrainConfig(), JOB, "resume"),
        (None, True, TrainConfig(), {}, "resume"),
        (None, True, TrainConfig(training=NEVER), JOB, "fresh"),
        (None, True, TrainConfig(overwrite=True), JOB, "fresh"),
        ("completed", True, TrainConfig(overwrite=True), JOB, "fresh"),
        ("failed", True, TrainConfig(), JOB, "resume"),
        ("skipped", True, TrainConfig(), JOB, "resume"),
        ("skipped", False, TrainConfig(), JOB, "fresh"),
        (None, False, TrainConfig(overwrite=True), RESTARTED, "fresh"),
        ("failed", False, TrainConfig(), JOB, "fresh"),
        ("failed", True, TrainConfig(training=NEVER), JOB, "fresh"),
        ("failed", False, EvaluateConfig(), JOB, "fresh"),
        (None, True, TrainConfig(), RESTARTED, "resume"),
        ("completed", True, TrainConfig(), RESTARTED, "done"),
        ("completed", True, TrainConfig(overwrite=True), RESTARTED, "done"),
    ],
)
def test_a_training_goes_on_where_it_can_a_restarted_one_always(folder, status, checkpoints, config, environ, start):
    assert choose_start_mode(folder(status, checkpoints=checkpoints), config, environ) == start


@pytest.mark.parametrize(
    ("status", "checkpoints", "config"),
    [
        ("completed", True, TrainConfig()),
        ("completed", False, EvaluateConfig()),
        ("completed", True, TrainConfig(training=NEVER)),
    ],
)
def test_a_result_that_would_be_lost_is_refused(folder, status, checkpoints, config):
    with pytest.raises(ConfigError, match=r"result.json: exists; give another --run, or --overwrite to replace it"):
        choose_start_mode(folder(status, checkpoints=checkpoints), config, JOB)


def test_a_quantization_that_missed_its_goal_has_measured_something(folder):
    step = folder("failed", task="quantize", metrics={"miou_pct": 40.0})
    with pytest.raises(ConfigError, match="exists"):
        choose_start_mode(step, QuantizeConfig(), JOB)


@pytest.mark.parametrize("config", [TrainConfig(overwrite=True), TrainConfig(training=NEVER)])
@pytest.mark.parametrize("status", [None, "failed"])
@pytest.mark.parametrize(
    ("begun", "start"),
    [
        (JOB, "resume"),
        (OTHER, "fresh"),  # killed before it came to the step: what is there is another job's
        (None, "fresh"),
    ],
)
def test_a_restarted_job_that_began_afresh_goes_on_from_its_own_only(folder, config, status, begun, start):
    assert choose_start_mode(folder(status, checkpoints=True, begun=begun), config, RESTARTED) == start


def test_checkpoints_that_were_set_aside_as_damaged_are_not_forgotten(folder):
    step = folder("failed")
    (step.checkpoints / "last.pt.damaged").write_bytes(b"")
    assert choose_start_mode(step, TrainConfig(), JOB) == "resume"  # and the training says that none is whole


def test_a_restarted_job_whose_earlier_life_did_not_come_to_the_step_does_as_asked(folder):
    step = folder("completed", job=OTHER, checkpoints=True)
    assert choose_start_mode(step, TrainConfig(overwrite=True), RESTARTED) == "fresh"
    with pytest.raises(ConfigError, match="exists"):
        choose_start_mode(step, TrainConfig(), RESTARTED)


def test_any_step_that_the_restarted_job_has_completed_is_done(folder):
    assert choose_start_mode(folder("completed", task="evaluate"), EvaluateConfig(overwrite=True), RESTARTED) == "done"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 9}, "--epochs was 10 and is 9"),
        ({"lr": 0.5, "crop": "64x64"}, "--crop was 256x512 and is 64x64; --lr was 0.01 and is 0.5"),
    ],
)
def test_a_training_that_may_not_go_on_is_told_what_can_be_done(tmp_path, change, said):
    before = TrainConfig(run=str(tmp_path))
    step = RunFolder(tmp_path).step("train")
    step.checkpoints.mkdir(parents=True)
    (step.checkpoints / "last.pt").write_bytes(b"")
    step.write_config(before)
    assert choose_start_mode(step, before, {}) == "resume"
    may_change = dataclasses.replace(before.training, keep=5, val_every=3, compress="bf16")
    assert choose_start_mode(step, dataclasses.replace(before, training=may_change), {}) == "resume"
    other = dataclasses.replace(before, training=dataclasses.replace(before.training, **change))
    advice = "give the same, or --overwrite to start afresh, or another --run$"
    with pytest.raises(ConfigError, match=f"its checkpoints are of another training: {said}; {advice}"):
        choose_start_mode(step, other, {})
    (step.path / "model.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"or another --run with --init weights .*model\.pt to train on from its we"):
        choose_start_mode(step, other, {})
    assert choose_start_mode(step, dataclasses.replace(other, overwrite=True), {}) == "fresh"
