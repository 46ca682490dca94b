"""One step on one rank: parts give the gradient of the whole, clipping shortens it, an auxiliary head adds its part."""

import os
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
from segdist.training.loss import PixelLoss
from segdist.training.optimizer import build_optimizer
from segdist.training.step import TrainStep

FINE = SimpleNamespace(failed=False, check=lambda: None)


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (5, 32, 64, 3), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 4, (5, 32, 64), generator=generator).to(torch.uint8)
    labels[2:] = labels[2:].where(torch.rand(3, 32, 64, generator=generator) < 0.3, torch.tensor(255).to(torch.uint8))
    return images, labels


def step_of(net, tmp_path, samples, **options):
    """Do the first step; gives the weights' changes and the step's end."""
    how = TrainingConfig(batch=5, crop="32x64", lr=1.0, momentum=0.0, weight_decay=0.0, poly_power=0.0, **options)
    context = RankContext(
        Ranks(),
        (0,),
        Cpu("", frozenset()),
        Collectives(Ranks(), "gloo"),
        RunFolder(tmp_path).step("train"),
        RuntimeConfig(),
    )
    loss = PixelLoss(torch.ones(4), how.label_smoothing, how.ohem, how.ohem_keep)
    before = [weight.detach().clone() for weight in net.parameters()]
    stepper = TrainStep(
        net, net, build_optimizer(net, how), None, context, Precision("fp32", False, ""), loss, how, steps=10
    )
    end = stepper(*samples, 0, False, FINE)
    return [now.detach() - earlier for now, earlier in zip(net.parameters(), before)], end


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
    whole, end = step_of(frozen_statistics(), tmp_path, samples, **options)
    in_parts, end_of_parts = step_of(frozen_statistics(), tmp_path, samples, accumulate=parts, **options)
    assert end_of_parts.loss == pytest.approx(end.loss, rel=1e-6)
    assert end_of_parts.weight == end.weight
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
    cost = sum(
        factor * F.cross_entropy(F.interpolate(out, (32, 64), mode="bilinear"), labels.long(), ignore_index=255)
        for factor, out in ((1, logits), (weight, second))
    )
    cost.backward()
    expected = {name: parameter.grad for name, parameter in net.named_parameters()}
    torch.manual_seed(0)
    again = AuxHeadNet(build_net(model, 4, 4), 4)
    changes, end = step_of(again, tmp_path, (images, labels), aux_weight=weight)
    assert end.loss == pytest.approx(float(cost), rel=1e-4)
    for (name, gradient), change in zip(expected.items(), changes):
        assert torch.allclose(change, -gradient, atol=2e-3 * float(gradient.abs().max()) + 1e-6), name
    assert without_aux_head(again).state_dict().keys() == build_net(model, 4, 4).state_dict().keys()


def test_this_process_has_no_ranks():
    assert "RANK" not in os.environ
