"""A training's state comes back as it was, on as many ranks or others, and from files of earlier versions."""

import pytest
import torch

from segdist.config import TrainingConfig
from segdist.models.aux_head import AuxHeadNet
from segdist.models.build import build_net
from segdist.runtime.collectives import Collectives
from segdist.runtime.ipex import load_ipex
from segdist.runtime.precision import choose_precision
from segdist.system.cpu import read_cpu
from segdist.system.ranks import Ranks
from segdist.training.ddp import gradient_types, running_stats
from segdist.training.ema import ExponentialMovingAverage
from segdist.training.optimizer import build_optimizer
from segdist.training.state import TrainProgress, TrainState

ROWS = [{"epoch": 1, "miou_pct": 20.0}, {"epoch": 2, "miou_pct": 10.0}]


def fresh(seed=0, aux_head=False, ema=True):
    torch.manual_seed(seed)
    net = build_net("unet", 4, 2)
    average = ExponentialMovingAverage(net, 0.9) if ema else None
    net = AuxHeadNet(net, 4) if aux_head else net
    optimizer = build_optimizer(net, TrainingConfig(lr=0.01))
    return TrainState(net, optimizer, average, Collectives(Ranks(), "gloo"), steps_per_epoch=5)


def do_step(state):
    """A step on random images: it draws random numbers, and moves weights, momenta, statistics and EMA."""
    state.optimizer.zero_grad()
    outputs = state.net.train()(torch.randn(2, 3, 32, 32))
    sum(out.square().mean() for out in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
    state.optimizer.step()
    if state.ema is not None:
        state.ema.update(state.fp32_weights(), state.step)
    state.progress.count(3.0, 2.0)


def tensors(state):
    saved = state.state_dict()
    momenta = [value["momentum_buffer"] for value in saved["optimizer"]["state"].values()]
    return [*saved["weights"].values(), *saved["average"].values(), *momenta, saved["ranks"][0]["rng"]]


@pytest.mark.parametrize("aux_head", [False, True])
@pytest.mark.parametrize("ema", [False, True])
def test_it_goes_on_from_a_copy_as_if_it_had_never_stopped(aux_head, ema):
    state = fresh(aux_head=aux_head, ema=ema)
    for _ in range(2):
        do_step(state)
    state.progress.rows, state.progress.best_row, state.progress.epoch = ROWS, ROWS[0], 2
    saved = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state.state_dict())
    do_step(state)
    again = fresh(seed=1, aux_head=aux_head, ema=ema)
    again.load_state_dict(saved)
    assert (again.step, again.progress.rows, again.progress.best_row) == (2 * 5 + 2, ROWS, ROWS[0])
    do_step(again)
    assert again.progress == state.progress
    assert all(map(torch.equal, tensors(again), tensors(state)))


def test_what_was_saved_is_a_copy_of_the_progress():
    state = fresh()
    saved = state.state_dict()
    state.progress.count(1.0, 1.0)
    assert saved["position"]["losses"] == []
    again = fresh()
    again.load_state_dict(saved)
    again.progress.count(1.0, 1.0)
    assert saved["position"]["losses"] == []


def test_on_another_number_of_ranks_the_running_statistics_are_the_mean_of_those_saved():
    state = fresh()
    saved = state.state_dict()
    stats = {name: value.clone() for name, value in running_stats(state.net).items()}
    saved["ranks"] = [
        {"rng": torch.get_rng_state(), "buffers": {name: value + shift for name, value in stats.items()}}
        for shift in (1.0, 2.0, 6.0)
    ]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    state.load_state_dict(saved)
    assert stats
    for name, value in running_stats(state.net).items():
        torch.testing.assert_close(value, stats[name] + 3.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_has_the_names_of_earlier_versions_and_theirs_are_read():
    """Files of format segdist-checkpoint-1; a field of another name must be mapped to the one in the file."""
    state = fresh()
    progress = {
        "epoch": 1,
        "batch": 3,
        "loss_sum": 6.0,
        "weight_sum": 4.0,
        "losses": [1.5, None, None],
        "left_out": 2,
        "seconds": 7.5,
        "elapsed": 90.0,
        "rows": ROWS[:1],
        "best_row": ROWS[0],
    }
    saved = {
        "position": progress,
        "weights": fresh(seed=1).net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": fresh(seed=1).ema.weights,
        "ranks": [{"rng": torch.get_rng_state(), "buffers": running_stats(state.net)}],
    }
    state.load_state_dict(saved)
    assert state.progress == TrainProgress(1, 3, 6.0, 4.0, [1.5, None, None], 2, 7.5, 90.0, ROWS[:1], ROWS[0])
    assert state.step == 8
    written = state.state_dict()
    assert written.keys() == saved.keys()
    assert written["position"] == progress
    assert written["ranks"][0].keys() == saved["ranks"][0].keys()
    assert all(torch.equal(written["average"][name], tensor) for name, tensor in saved["average"].items())


@pytest.mark.parametrize("aux_head", [False, True])
@pytest.mark.parametrize("ema", [False, True])
def test_the_model_is_the_net_without_auxiliary_head_with_the_averaged_weights(aux_head, ema):
    state = fresh(aux_head=aux_head, ema=ema)
    do_step(state)
    weights = state.model_weights(state.state_dict())
    assert weights.keys() == build_net("unet", 4, 2).state_dict().keys()
    for name, tensor in state.model.state_dict().items():
        expected = state.ema.weights.get(name, tensor) if ema else tensor
        assert torch.equal(weights[name], expected), name
    assert torch.equal(weights["head.weight"], state.model.head.weight) != ema


def test_the_clock_goes_on_from_the_time_of_earlier_starts():
    state = fresh()
    state.progress.elapsed = 1000.0
    state.start_clock()
    assert 1000.0 <= state.read_clock() < 1100.0
    assert state.progress.elapsed >= 1000.0


def test_a_skipped_step_counts_as_a_step_but_not_in_the_loss():
    progress = TrainProgress()
    progress.count(6.0, 2.0)
    assert [progress.skip_step(), progress.skip_step()] == [1, 2]
    assert (progress.batch, progress.losses, progress.loss) == (3, [3.0, None, None], 3.0)
    progress.count(2.0, 2.0)
    assert (progress.skipped_steps, progress.loss) == (0, 2.0)


@pytest.mark.skipif(not read_cpu().has_bf16, reason="this CPU has no AVX512_BF16 or AMX: bf16 with IPEX cannot run")
@pytest.mark.parametrize("aux_head", [False, True])
def test_under_ipex_bf16_the_average_is_of_the_fp32_weights(aux_head):
    ipex = load_ipex("on", read_cpu(), True)
    state = fresh(aux_head=aux_head)
    state.net, state.optimizer = choose_precision("bf16", read_cpu(), ipex).prepare(
        ipex, state.net.train(), state.optimizer
    )
    halves = {name: weight for name, weight in state.model.named_parameters() if weight.dtype == torch.bfloat16}
    assert halves
    expected = {name: weight.clone() for name, weight in state.ema.weights.items()}
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            do_step(state)
        whole, decay = state.model_weights({**state.state_dict(), "average": {}}), min(0.9, (2 + step) / (11 + step))
        for name, average in expected.items():
            average.lerp_(whole[name], 1 - decay)
    for name, average in state.ema.state_dict().items():
        torch.testing.assert_close(average, expected[name], rtol=0, atol=0)
    assert any(not torch.equal(whole[name], half.float()) for name, half in halves.items())  # they do differ
    assert "bfloat16" in gradient_types(state.net)
    before = {name: weight.clone() for name, weight in state.fp32_weights().items()}
    with state.ema.swapped_in(state.model):
        for name, weight in state.model.named_parameters():
            assert torch.equal(weight, expected[name].to(weight.dtype))
    assert all(torch.equal(weight, before[name]) for name, weight in state.fp32_weights().items())


def test_the_type_of_exchanged_gradients_is_told():
    assert gradient_types(torch.nn.Linear(1000, 250, bias=False)) == "1.0 MB of float32"
