"""A pipeline in one allocation, given again: what is completed stays, the rest is done; no result is lost."""

import argparse

import pytest

from segdist.config import ConfigError, PipelineConfig, TrainingConfig, task_of
from segdist.launch.allocation import THIS_MACHINE
from segdist.launch.pipeline import run_pipeline
from segdist.run.folder import RunFolder
from segdist.run.result import Result

STEPS = ["train", "evaluate fp32", "quantize", "evaluate int8"]


@pytest.fixture
def pipeline(tmp_path):
    """Run it with steps that write a result and nothing else; gives the exit code and the steps that ran."""

    def run(fails="", **options):
        config, ran = PipelineConfig(str(tmp_path), **options), []

        def run_step(_, step_config, arguments):
            step = RunFolder(tmp_path).step_of(step_config)
            label = step.path.relative_to(tmp_path).as_posix().replace("/", " ")
            ran.append(label)
            status = "failed" if label == fails else "completed"
            metrics = {} if label == fails else {"n": len(ran)}
            step.write_result(Result(task_of(step_config), step.name, status, "2026-01-31T12:00:00Z", metrics=metrics))
            return int(label == fails)

        return run_pipeline(argparse.Namespace(), config, THIS_MACHINE, run_step), ran

    return run


def results(tmp_path):
    return [step.read_result() for step in RunFolder(tmp_path).steps()]


def test_the_same_command_goes_on_behind_what_is_completed(pipeline, tmp_path):
    assert pipeline(fails="quantize") == (1, STEPS[:3])
    assert [one.status for one in results(tmp_path)] == ["completed", "completed", "failed", "skipped"]
    assert pipeline() == (0, STEPS[2:])
    assert {one.status for one in results(tmp_path)} == {"completed"}
    before = results(tmp_path)
    assert pipeline() == (0, [])
    assert results(tmp_path) == before


def test_another_config_is_refused_before_anything_is_written(pipeline, tmp_path):
    assert pipeline()[0] == 0
    before = results(tmp_path), RunFolder(tmp_path).step("train").config_json.read_text()
    with pytest.raises(ConfigError, match=r"train/result.json: exists; give another --run, or --overwrite"):
        pipeline(training=TrainingConfig(epochs=99))
    assert (results(tmp_path), RunFolder(tmp_path).step("train").config_json.read_text()) == before
    assert pipeline(training=TrainingConfig(epochs=99), overwrite=True) == (0, STEPS)


def test_what_was_scored_before_the_training_is_refused(pipeline, tmp_path):
    assert pipeline()[0] == 0
    RunFolder(tmp_path).step("train").result_json.unlink()
    with pytest.raises(ConfigError, match=r"fp32/result.json: exists"):
        pipeline()
