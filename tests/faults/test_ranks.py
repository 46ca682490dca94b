"""One rank fails, is killed or hangs: every rank ends, and says which it was and where."""

import math
import re
import signal
from types import SimpleNamespace

import pytest

from segdist.config import ConfigError, TrainingConfig
from segdist.evaluation.metrics import ConfusionMatrix
from segdist.evaluation.scoring import Score
from segdist.run.result import read_metrics
from segdist.tasks.train import require_trained
from segdist.training.checkpoint_file import read_checkpoint
from segdist.training.state import TrainProgress

WITHIN = ("--timeout", "3")


def test_an_exception_on_one_rank_is_the_error_of_all(training):
    run = training("run", 3, "--batch", "3")
    start = run.start(faults={2: [{"place": "step", "count": 3, "act": "raise", "with": "a bad day"}]})
    assert start.codes() == [1, 1, 1]
    assert "Traceback" in start.log(2)
    for rank in (0, 1):
        assert start.log(rank).count("error: ") == 1
        assert "error: rank 2 failed at step 3 (forward pass): ValueError: a bad day" in start.log(rank)
        assert "Traceback" not in start.log(rank)
    assert "rank 2 failed at step 3" in run.run.step("train").read_result().error


def test_an_exception_on_rank_0_reaches_the_others_before_it_is_gone(training):
    start = training().start(faults={0: [{"place": "agree", "count": 2, "act": "raise", "with": "a bad day"}]})
    assert start.codes() == [1, 1]
    assert "error: rank 0 failed at step 2 (exchanges the loss): ValueError: a bad day" in start.log(1)


@pytest.mark.parametrize("world", [1, 2])
def test_a_failure_leaves_the_checkpoint_that_is_on_its_way_to_the_disk(training, world):
    slow = {"place": "write", "count": 1, "act": "wait", "with": 2}
    fails = {"place": "step", "count": 5, "act": "raise", "with": "a bad day"}
    run = training("run", world, "--checkpoint-minutes", "5")
    start = run.start(faults={0: [slow, fails]})
    assert start.codes() == [1] * world
    assert "ValueError: a bad day" in start.log()
    step = run.run.step("train")
    assert read_checkpoint(step.checkpoints / "last.pt")["step"] == 4
    assert len(read_metrics(step.metrics_jsonl)) == 1
    assert step.read_result().status == "failed"
    assert "last.pt: step 4 (epoch 2, 0 of 4 steps done)" in run.finish().log()


def test_a_killed_rank_is_named_by_those_it_leaves(training):
    start = training().start(faults={1: [{"place": "step", "count": 4}]})
    assert start.codes() == [1, -9]
    assert "error: rank 1 is gone without a word, last seen at step " in start.log(0)
    assert "killed, perhaps for memory" in start.log(0)
    assert "Traceback" not in start.log(0)


def test_where_rank_0_is_killed_the_others_say_so(training):
    start = training().start(faults={0: [{"place": "step", "count": 4}]})
    assert start.codes() == [-9, 1]
    assert "error: rank 0 is gone or does not answer" in start.log(1)


@pytest.mark.parametrize("place", ["image", "agree"])
def test_a_rank_that_waits_for_something_that_never_comes_is_named_with_its_step(training, place):
    run = training("run", 2, *WITHIN)
    doing = {"image": "waits for its images", "agree": "exchanges the loss"}[place]
    start = run.start(faults={1: [{"place": place, "count": 3, "act": "wait", "with": 1000}]})
    assert start.codes() == [1, 1]
    said = f"error: rank 1 stalled at step 3 ({doing}): no progress for 3 s"
    assert said in start.log(0)
    assert said in start.log(1)
    assert said.removeprefix("error: ") in run.run.step("train").read_result().error


def test_a_frozen_rank_is_named_with_its_step(training):
    run = training("run", 2, *WITHIN)
    start = run.start(faults={1: [{"place": "image", "count": 3, "act": "hang"}]})
    assert start.wait(0) == 1
    assert "error: rank 1 stalled at step " in start.log(0)
    assert "rank 1 stalled at step " in run.run.step("train").read_result().error
    start.signal(signal.SIGKILL, 1)
    start.codes()


def test_where_rank_0_is_frozen_the_others_say_so(training):
    start = training("run", 2, *WITHIN).start(faults={0: [{"place": "image", "count": 3, "act": "hang"}]})
    assert start.wait(1) == 1
    assert "error: rank 0 is gone or does not answer" in start.log(1)
    start.signal(signal.SIGKILL, 0)
    start.codes()


def test_a_loss_that_is_not_finite_stops_all_with_step_samples_and_checkpoint(training):
    run = training()
    start = run.start(faults={1: [{"place": "loss", "count": 6, "act": "not finite"}]})
    assert start.codes() == [1, 1]
    for rank in (0, 1):
        assert "error: step 6: the loss or its gradient is not finite, with " in start.log(rank)
        assert "_leftImg8bit.png; --lr 0.01 may be too large, or --on-nan skip leaves such steps out" in start.log(rank)
    for rank in (0, 1):
        assert "the last good checkpoint is " in start.log(rank)
        assert "last.pt (step 5)" in start.log(rank)
    assert "Traceback" not in start.log(0)
    again = run.finish()
    assert "goes on from" in again.log(0)


@pytest.mark.parametrize("world", [1, 2])
def test_a_step_that_is_not_finite_can_be_left_out(training, world):
    run = training("run", world, "--on-nan", "skip")
    start = run.start(faults={world - 1: [{"place": "loss", "count": 6, "act": "not finite"}]})
    assert start.codes() == [0] * world, start.log(0)
    assert "warning: step 6: the loss or its gradient is not finite, with " in start.log(0)
    losses = [row["loss"] for row in run.left()["steps"]]
    assert losses[5] is None
    assert None not in losses[:5] + losses[6:]
    assert all(tensor.isfinite().all() for tensor in run.left()["weights"].values())


def test_steps_that_are_never_finite_end_the_training_all_the_same(training):
    run = training("run", 1, "--on-nan", "skip", "--batch", "1", "--epochs", "2")
    faults = [{"place": "loss", "count": count, "act": "not finite"} for count in range(5, 20)]
    start = run.start("--batch", "1", "--data", str(run.data), faults={0: faults})
    assert start.codes() == [1]
    assert start.log().count("the step is left out") == 9
    assert "error: step 14: the loss or its gradient is not finite, with " in start.log()
    assert ", the 10th in a row; --lr" in start.log()


def test_an_epoch_of_which_nothing_is_left_ends_the_training(training):
    run = training("run", 1, "--on-nan", "skip")
    faults = [{"place": "loss", "count": count, "act": "not finite"} for count in range(5, 9)]
    start = run.start(faults={0: faults})
    assert start.codes() == [1]
    assert "error: epoch 2: each of its 4 steps was left out, as its loss or gradient was not finite" in start.log()
    assert "the last good checkpoint is " in start.log()
    assert "epoch 1/3: loss" in start.log()
    assert "Traceback" not in start.log()


def score_with(loss, pixels=1):
    """A score of one class whose pixels have this mean loss (nats)."""
    confusion = ConfusionMatrix(1)
    confusion.matrix[0, 0] = pixels
    return Score(confusion, loss_sum=loss * pixels, images=1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_is_an_error_with_the_epoch(loss):
    checkpointer = SimpleNamespace(last_saved=lambda: "there is no checkpoint yet")
    progress = TrainProgress(epoch=2, losses=[0.5, None])
    said = f"epoch 3: the validation loss is {loss}; --lr 0.01 may be too large; there is no checkpoint yet"
    with pytest.raises(FloatingPointError, match=re.escape(said)):
        require_trained(progress, score_with(loss), TrainingConfig(lr=0.01), checkpointer)
    require_trained(progress, score_with(0.5), TrainingConfig(), checkpointer)


def test_a_validation_split_without_a_counted_pixel_is_refused_though_its_loss_is_finite():
    checkpointer = SimpleNamespace(last_saved=lambda: "there is no checkpoint yet")
    with pytest.raises(ConfigError, match="--data: no pixel of the validation split belongs to a class"):
        require_trained(TrainProgress(losses=[0.5]), score_with(0.0, pixels=0), TrainingConfig(), checkpointer)
