"""Batch normalization over ranks is that of one rank with all samples: values, gradients, averages, trainings."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from segdist.run.result import read_metrics
from segdist.training.sync_batchnorm import SyncBatchNorm2d, convert_sync_batchnorm

from ..faults.harness import Training

pytestmark = pytest.mark.slow  # trains, or starts many processes

CODE = """
import sys, torch, torch.distributed as dist
from torch import nn
from segdist.training.sync_batchnorm import convert_sync_batchnorm
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
case = torch.load(f"{folder}/case.pt")
net = nn.Sequential(nn.BatchNorm2d(5), nn.Conv2d(5, 3, 3), nn.BatchNorm2d(3))
net.load_state_dict(case["state"])
convert_sync_batchnorm(net, dist.group.WORLD)
own = case["x"].split(case["shares"])[rank].clone().requires_grad_()
y = net(own)
(y * case["towards"].split(case["shares"])[rank]).sum().backward()
torch.save({"y": y.detach(), "x": own.grad, "weights": [p.grad for p in net.parameters()], "state": net.state_dict()},
           f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("shares", [[3, 1], [2, 2, 1, 1]])
def test_ranks_with_uneven_shares_give_what_one_rank_gives(shares, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(5), nn.Conv2d(5, 3, 3), nn.BatchNorm2d(3))
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    x = (3 * torch.randn(sum(shares), 5, 6, 7) + 10).requires_grad_()
    towards = torch.randn(sum(shares), 3, 4, 5)
    case = {"state": net.state_dict(), "x": x.detach(), "towards": towards, "shares": shares}
    torch.save(case, tmp_path / "case.pt")
    ranks = [
        subprocess.Popen([sys.executable, "-c", CODE, str(rank), str(len(shares)), str(tmp_path)])
        for rank in range(len(shares))
    ]
    y = net(x)
    (y * towards).sum().backward()
    assert [rank.wait(120) for rank in ranks] == [0] * len(shares)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(shares))]
    close = {"rtol": 1e-4, "atol": 1e-4}
    assert torch.allclose(torch.cat([part["y"] for part in parts]), y, **close)
    assert torch.allclose(torch.cat([part["x"] for part in parts]), x.grad, **close)
    for index, parameter in enumerate(net.parameters()):
        assert torch.allclose(sum(part["weights"][index] for part in parts), parameter.grad, rtol=1e-4, atol=1e-3)
    for name, value in net.state_dict().items():
        for part in parts:
            assert torch.allclose(part["state"][name].double(), value.double(), rtol=1e-5, atol=1e-6), name


def test_it_has_the_same_parameters_and_is_plain_in_eval_mode():
    net = nn.Sequential(nn.Sequential(nn.BatchNorm2d(3)))
    names, weight = list(net.state_dict()), net[0][0].weight
    x = torch.randn(2, 3, 4, 4)
    expected = net.eval()(x)
    convert_sync_batchnorm(net, None)
    assert isinstance(net[0][0], SyncBatchNorm2d)
    assert net[0][0].weight is weight
    assert list(net.state_dict()) == names
    assert torch.equal(net.eval()(x), expected)


def test_1_2_and_4_ranks_train_alike_with_it(zygote, streets, tmp_path):
    """Against one rank with plain batch normalization; five images a step share out unevenly on two and four."""
    curves = {}
    for world in (1, 2, 4):
        options = (
            "--width",
            "4",
            "--epochs",
            "2",
            "--crop",
            "64x128",
            "--batch",
            "5",
            "--workers",
            "0",
            "--ipex",
            "off",
        )
        more = ("--precision", "fp32", "--threads", "1", "--check", "headers", "--val-size", "32x64", "--lr", "0.002")
        synced = ("--sync-batchnorm",) if world > 1 else ()
        run = Training(zygote, tmp_path / f"on{world}", streets, world, (*options, *more, *synced))
        run.finish()
        step = run.run.step("train")
        curves[world] = [row["loss"] for row in read_metrics(step.steps_jsonl)] + [
            row["val_loss"] for row in read_metrics(step.metrics_jsonl)
        ]
    assert curves[2] == pytest.approx(curves[1], rel=1e-4)
    assert curves[4] == pytest.approx(curves[1], rel=1e-4)
