"""One step on one rank: parts give the gradient of the whole, clipping shortens it, an auxiliary head adds its part."""

import dataclasses
import signal
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdist.config import RuntimeConfig, TrainingConfig
from segdist.models.aux_head import AuxHeadNet, without_aux_head
from segdist.models.build import build_net
from segdist.models.forward import to_input
from segdist.run.folder import RunFolder
from segdist.runtime.collectives import Collectives
from segdist.runtime.precision import Precision
from segdist.runtime.rank_context import RankContext
from segdist.system.cpu import Cpu
from segdist.system.ranks import Ranks
from segdist.training.ema import ExponentialMovingAverage
from segdist.training.loss import PixelCrossEntropy
from segdist.training.optimizer import build_optimizer
from segdist.training.state import TrainState
from segdist.training.step import TrainStep

HEALTHY = SimpleNamespace(failed=False, check=lambda: None)


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (5, 32, 64, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 4, (5, 32, 64), generator=generator).to(torch.uint8)
    labels[2:] = labels[2:].where(torch.rand(3, 32, 64, generator=generator) < 0.3, torch.tensor(255).to(torch.uint8))
    return images, labels


def train_step_of(net, tmp_path, **options):
    """The steps of a training of ten, on one rank."""
    cfg = TrainingConfig(
        **{"batch": 5, "crop": "32x64", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "poly_power": 0.0, **options},
        epochs=1,
    )
    context = RankContext(
        Ranks(),
        (0,),
        Cpu("", frozenset()),
        Collectives(Ranks(), "gloo"),
        RunFolder(tmp_path).step("train"),
        RuntimeConfig(),
    )
    criterion = PixelCrossEntropy(torch.ones(4), cfg.label_smoothing, cfg.ohem, cfg.ohem_keep)
    ema = ExponentialMovingAverage(without_aux_head(net), cfg.ema) if cfg.ema else None
    state = TrainState(net, build_optimizer(net, cfg), ema, context.collectives, steps_per_epoch=10)
    return TrainStep(state, net, criterion, context, Precision("fp32", False, ""), cfg)


def step_of(net, tmp_path, samples, **options):
    """Do the first step; gives the weights' changes and the step's result."""
    before = [weight.detach().clone() for weight in net.parameters()]
    result = train_step_of(net, tmp_path, **options)(*samples, False, HEALTHY)
    return [now.detach() - earlier for now, earlier in zip(net.parameters(), before)], result


def frozen_statistics(model="unet"):
    """A net in which batch normalization takes no part of the batch into account, as parts of a step differ there."""
    torch.manual_seed(0)
    net = build_net(model, 4, 4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train = lambda mode=True: None
            module.training = False
    return net


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("options", [{}, {"ohem": 0.3, "label_smoothing": 0.1}])
def test_a_step_in_parts_is_the_step_of_the_whole_batch(tmp_path, samples, parts, options):
    whole, result = step_of(frozen_statistics(), tmp_path, samples, **options)
    in_parts, result_of_parts = step_of(frozen_statistics(), tmp_path, samples, accumulate=parts, **options)
    assert result_of_parts.loss == pytest.approx(result.loss, rel=1e-6)
    assert result_of_parts.weight == result.weight
    scale = max(float(change.abs().max()) for change in whole)
    for one, other in zip(whole, in_parts):
        assert torch.allclose(one, other, atol=1e-5 * scale)


def test_a_step_goes_down_the_gradient_of_the_mean_over_all_labelled_pixels(tmp_path, samples):
    images, labels = samples
    net = frozen_statistics()
    F.cross_entropy(net(to_input(images)), labels.long(), ignore_index=255).backward()
    gradients = [weight.grad for weight in net.parameters()]
    changes, _ = step_of(frozen_statistics(), tmp_path, samples)
    for change, gradient in zip(changes, gradients):
        assert torch.allclose(change, -gradient, atol=1e-5, rtol=1e-4)


def test_a_long_gradient_is_shortened_and_a_short_one_is_left(tmp_path, samples):
    def norm(changes):
        return float(torch.cat([change.flatten() for change in changes]).norm())

    free, _ = step_of(frozen_statistics(), tmp_path, samples)
    clipped, _ = step_of(frozen_statistics(), tmp_path, samples, clip_norm=norm(free) / 3)
    assert norm(clipped) == pytest.approx(norm(free) / 3, rel=1e-4)
    assert torch.allclose(clipped[0], free[0] / 3, rtol=1e-3, atol=1e-7)
    unclipped, _ = step_of(frozen_statistics(), tmp_path, samples, clip_norm=norm(free) * 2)
    assert torch.equal(unclipped[0], free[0])


@pytest.mark.parametrize("model", ["unet", "hrnetv2_w18"])
def test_the_auxiliary_head_adds_its_weighted_loss_and_is_left_out_of_the_model(tmp_path, samples, model):
    images, labels = samples[0][:2], samples[1][:2]
    torch.manual_seed(0)
    net = AuxHeadNet(build_net(model, 4, 4), 4)
    logits, second = net(to_input(images))
    assert second.shape == (2, 4, 8, 16)
    weight = 0.4
    loss = sum(
        factor * F.cross_entropy(F.interpolate(out, (32, 64), mode="bilinear"), labels.long(), ignore_index=255)
        for factor, out in ((1, logits), (weight, second))
    )
    loss.backward()
    expected = {name: parameter.grad for name, parameter in net.named_parameters()}
    torch.manual_seed(0)
    again = AuxHeadNet(build_net(model, 4, 4), 4)
    changes, result = step_of(again, tmp_path, (images, labels), aux_weight=weight)
    assert result.loss == pytest.approx(float(loss), rel=1e-4)
    for (name, gradient), change in zip(expected.items(), changes):
        assert torch.allclose(change, -gradient, atol=2e-3 * float(gradient.abs().max()) + 1e-6), name
    assert without_aux_head(again).state_dict().keys() == build_net(model, 4, 4).state_dict().keys()


@pytest.mark.parametrize("name", ["contiguous", "channels_last"])
@pytest.mark.parametrize("model", ["unet", "hrnetv2_w18"])
def test_every_layer_works_in_the_memory_format_that_was_chosen(tmp_path, samples, model, name):
    wanted = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[name]
    net = build_net(model, 4, 4).to(memory_format=wanted)
    train_step = train_step_of(net, tmp_path)
    choices = dataclasses.replace(train_step.context.start.choices, memory_format=name)
    train_step.context.start = dataclasses.replace(train_step.context.start, choices=choices)
    seen = []

    def look(module, inputs, out):
        if out.shape[1] > 1 and out.shape[2] > 1:  # else both formats are one
            seen.append(out.is_contiguous(memory_format=wanted))

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(look)
    train_step(*samples, False, HEALTHY)
    assert len(seen) > 10
    assert all(seen)


def everything(train_step):
    """Copies of all that a step may change."""
    state = train_step.state
    ema = list(state.ema.weights.values())
    momenta = [value["momentum_buffer"] for value in state.optimizer.state.values()]
    return [tensor.clone() for tensor in (*state.net.state_dict().values(), *ema, *momenta)]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_the_next_one_goes_on(tmp_path, samples, where):
    torch.manual_seed(0)
    net = build_net("unet", 4, 4)
    train_step = train_step_of(net, tmp_path, on_nan="skip", ema=0.9, momentum=0.9, lr=0.01)
    assert train_step(*samples, False, HEALTHY).bad_ranks == ()
    before = everything(train_step)
    spoil = {"loss": lambda out: out * float("nan"), "gradient": SpoiltGradient.apply}[where]
    hook = net.register_forward_hook(lambda module, inputs, out: spoil(out))
    assert train_step(*samples, False, HEALTHY).bad_ranks == (0,)
    hook.remove()
    assert all(map(torch.equal, everything(train_step), before))
    assert train_step(*samples, False, HEALTHY).bad_ranks == ()
    assert not any(map(torch.equal, everything(train_step), before))


class SpoiltGradient(torch.autograd.Function):
    """The identity, with a gradient that is infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def test_an_error_on_rank_0_beside_the_steps_ends_the_step_before_the_weights_change(tmp_path, samples):
    def check():
        raise OSError(28, "No space left on device")

    net = frozen_statistics()
    before = [weight.detach().clone() for weight in net.parameters()]
    with pytest.raises(OSError, match="No space left on device"):
        train_step_of(net, tmp_path)(*samples, False, SimpleNamespace(failed=True, check=check))
    assert all(map(torch.equal, net.parameters(), before))


def test_a_due_checkpoint_and_a_signal_are_in_the_result(tmp_path, samples):
    train_step = train_step_of(frozen_statistics(), tmp_path)
    quiet, due = train_step(*samples, False, HEALTHY), train_step(*samples, True, HEALTHY)
    assert (quiet.save, quiet.stop, due.save, due.stop) == (False, False, True, False)
    train_step.context.stop.handle(signal.SIGTERM)
    assert train_step(*samples, False, HEALTHY).stop


def test_the_average_takes_in_each_step_of_the_training(tmp_path, samples):
    net = AuxHeadNet(frozen_statistics(), 4)
    train_step = train_step_of(net, tmp_path, ema=0.9, lr=0.01)
    expected = {name: weight.detach().clone() for name, weight in net.net.named_parameters()}
    for step in range(3):
        train_step(*samples, False, HEALTHY)
        train_step.state.progress.batch += 1
        decay = min(0.9, (2 + step) / (11 + step))
        for name, weight in net.net.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * weight.detach()
    assert train_step.state.ema.weights.keys() == expected.keys()
    for name, weight in train_step.state.ema.weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-6)
