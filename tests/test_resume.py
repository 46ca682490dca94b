"""How a step starts, from what its folder holds, what is asked for, and whether the job was restarted."""

import pytest

from segdist.config import ConfigError, EvaluateConfig, TrainConfig, TrainingConfig
from segdist.results import Result, RunFolder, job_of
from segdist.resume import choose_start

JOB = {"SEGDIST_JOB_CLUSTER": "slurm", "SEGDIST_JOB_ID": "12"}
OTHER = {"SEGDIST_JOB_CLUSTER": "slurm", "SEGDIST_JOB_ID": "11"}
RESTARTED = {**JOB, "SEGDIST_RESTART": "1"}
NEVER = TrainingConfig(resume="never")


@pytest.fixture
def folder(tmp_path):
    """Make a step that holds a result and checkpoints, or not."""

    def make(status=None, job=JOB, checkpoints=False, task="train"):
        step = RunFolder(tmp_path).step(task)
        step.checkpoints.mkdir(parents=True)
        if status is not None:
            step.write_result(Result(task, task, status, "2026-01-31T12:00:00Z", job=job_of(job)))
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
        (None, True, TrainConfig(overwrite=True), RESTARTED, "resume"),
        (None, True, TrainConfig(training=NEVER), RESTARTED, "resume"),
        ("failed", True, TrainConfig(overwrite=True), RESTARTED, "resume"),
        ("completed", True, TrainConfig(), RESTARTED, "done"),
        ("completed", True, TrainConfig(overwrite=True), RESTARTED, "done"),
    ],
)
def test_a_training_goes_on_where_it_can_a_restarted_one_always(folder, status, checkpoints, config, environ, start):
    assert choose_start(folder(status, checkpoints=checkpoints), config, environ) == start


@pytest.mark.parametrize(
    ("status", "checkpoints", "config"),
    [
        ("completed", True, TrainConfig()),
        ("completed", False, EvaluateConfig()),
        ("failed", False, TrainConfig()),
        ("failed", True, TrainConfig(training=NEVER)),
        ("failed", False, EvaluateConfig()),
    ],
)
def test_a_result_that_would_be_lost_is_refused(folder, status, checkpoints, config):
    with pytest.raises(ConfigError, match=r"result.json: exists; give another --run, or --overwrite to replace it"):
        choose_start(folder(status, checkpoints=checkpoints), config, JOB)


def test_a_restarted_job_whose_earlier_life_did_not_come_to_the_step_does_as_asked(folder):
    step = folder("completed", job=OTHER, checkpoints=True)
    assert choose_start(step, TrainConfig(overwrite=True), RESTARTED) == "fresh"
    with pytest.raises(ConfigError, match="exists"):
        choose_start(step, TrainConfig(), RESTARTED)


def test_any_step_that_the_restarted_job_has_completed_is_done(folder):
    assert choose_start(folder("completed", task="evaluate"), EvaluateConfig(overwrite=True), RESTARTED) == "done"
