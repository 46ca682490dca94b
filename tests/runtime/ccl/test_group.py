"""The backend against gloo, and against its peers' ends."""

import pytest

from segdist.runtime.ccl.build import BuildError, build

from .ranks import finish, kill_at_work, run, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _shim():
    try:
        build()
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(params=["mpi", "ofi"], autouse=True)
def _transport(request, monkeypatch):
    monkeypatch.setenv("CCL_ATL_TRANSPORT", request.param)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_every_operation_gives_what_gloo_gives(world):
    run(
        """
        group = new()
        torch.manual_seed(rank)
        def near(a, b, dtype):
            # another order of addition: 11 bits of float16 and 8 of bfloat16 leave something to rounding
            few = {torch.bfloat16: 2**-8, torch.float16: 2**-11}.get(dtype)
            if few:
                assert (a.float() - b.float()).abs().max() <= 4 * world * few * max(1, a.float().abs().max()), (a, b)
            else:
                torch.testing.assert_close(a, b)
        floats = torch.float32, torch.float64, torch.bfloat16, torch.float16
        for dtype in (*floats, torch.int64, torch.int32, torch.uint8, torch.int8):
            for n in (1, 7, 1000, 300_001):
                if dtype.is_floating_point:
                    x = torch.randn(n).to(dtype)
                else:
                    x = torch.randint(0, 5, (n,), dtype=dtype)
                for op in (dist.ReduceOp.SUM, dist.ReduceOp.MIN, dist.ReduceOp.MAX, dist.ReduceOp.PRODUCT):
                    a, b = x.clone(), x.clone()
                    dist.all_reduce(a, op); dist.all_reduce(b, op, group=group); near(a, b, dtype)
                a, b = x.clone(), x.clone()
                dist.all_reduce(b, dist.ReduceOp.AVG, group=group)
                dist.all_reduce(a)
                near(a / world if dtype.is_floating_point else a.div(world, rounding_mode="trunc"), b, dtype)
                for root in (0, world - 1):
                    a, b = x.clone(), x.clone()
                    dist.broadcast(a, root); dist.broadcast(b, root, group=group); assert torch.equal(a, b)
                    a, b = x.clone(), x.clone()
                    dist.reduce(a, root); dist.reduce(b, root, group=group)
                    if rank == root: near(a, b, dtype)
                a, b = [torch.empty_like(x) for _ in range(world)], [torch.empty_like(x) for _ in range(world)]
                dist.all_gather(a, x); dist.all_gather(b, x, group=group)
                assert all(torch.equal(p, q) for p, q in zip(a, b))
                b = torch.empty(n * world, dtype=dtype)
                dist.all_gather_into_tensor(b, x, group=group); assert torch.equal(torch.cat(a), b)
                parts = [(x * (k + 1)) for k in range(world)]
                out = torch.empty_like(x)
                dist.reduce_scatter(out, parts, group=group)
                whole = torch.cat(parts); dist.all_reduce(whole)
                near(whole[rank * n:(rank + 1) * n], out, dtype)
                out = torch.empty_like(x)
                dist.reduce_scatter_tensor(out, torch.cat(parts), group=group)
                near(whole[rank * n:(rank + 1) * n], out, dtype)
            dist.barrier(group=group)
        t = torch.arange(12.).reshape(3, 4).t()  # not contiguous
        dist.all_reduce(t, group=group)
        assert torch.equal(t, world * torch.arange(12.).reshape(3, 4).t())
        dist.destroy_process_group()
        """,
        world,
    )


def test_sums_of_bfloat16_are_rounded_and_not_cut_off():
    run(
        """
        group = new()
        torch.manual_seed(rank)
        x = torch.randn(1_000_000)
        half = x.bfloat16()
        dist.all_reduce(half, group=group)
        exact = x.bfloat16().double(); dist.all_reduce(exact)
        shrinkage = (half.double().abs().sum() / exact.abs().sum() - 1).abs().item()
        assert shrinkage < 1e-5 * world, shrinkage
        """,
        4,
    )


def test_a_thousand_asynchronous_operations_and_two_groups_at_once():
    run(
        """
        one, two = new(), new()
        works = []
        for i in range(1000):
            x = torch.full((1 + i * 37 % 5000,), float(i + rank))
            works.append((i, x, dist.all_reduce(x, group=one if i % 3 else two, async_op=True)))
            if len(works) == 20:
                for j, y, work in works:
                    work.wait()
                    assert (y == world * j + sum(range(world))).all(), (j, y[0])
                works = []
        """,
        2,
    )


def test_ddp_gradients_are_bit_equal_to_gloos():
    run(
        """
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        grads = []
        for group in (dist.group.WORLD, new()):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 512, 3),
                                nn.Flatten(), nn.Linear(512 * 144, 10))
            ddp = DDP(net, process_group=group, gradient_as_bucket_view=True, bucket_cap_mb=1)
            torch.manual_seed(1 + rank)
            for _ in range(3):
                ddp.zero_grad(); ddp(torch.randn(2, 3, 16, 16)).pow(2).sum().backward()
            grads.append([p.grad.clone() for p in net.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*grads))
        """,
        2,
    )


def test_a_rank_that_does_not_join_in_is_an_error_at_the_time_out():
    outputs = run(
        """
        group = new(timeout=2)
        dist.all_reduce(torch.ones(1), group=group)
        if rank == 0:
            start = time.monotonic()
            try:
                dist.all_reduce(torch.ones(1000), group=group)
            except RuntimeError as error:
                print("AFTER", time.monotonic() - start, error)
            try:
                dist.all_reduce(torch.ones(1000), group=group)
            except RuntimeError as error:
                print("AGAIN", error)
        else:
            time.sleep(6)
        print("END", flush=True); os._exit(0)
        """,
        2,
    )
    after = float(outputs[0].split("AFTER ")[1].split()[0])
    assert 2 <= after < 3.5
    assert "is not done after 2 s" in outputs[0]
    assert "AGAIN" in outputs[0]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_rank_that_is_killed_is_an_error_within_seconds(victim):
    ranks = start(
        """
        group = new(timeout=600)
        x = torch.ones(1_000_000)
        print("READY", flush=True)
        try:
            while True:
                dist.all_reduce(x.fill_(1), group=group)
        except RuntimeError as error:
            print("LOST", time.time(), str(error).replace("\\n", " "), flush=True)
            os._exit(9)
        """,
        3,
    )
    killed = kill_at_work(ranks, victim)
    codes, outputs = finish(ranks, 60)
    for rank in {0, 1, 2} - {victim}:
        assert codes[rank] == 9, (codes, outputs)
        assert float(outputs[rank].split("LOST ")[1].split()[0]) - killed < 3
        assert f"rank {victim} is gone" in outputs[rank], outputs


def test_ddp_in_the_midst_of_a_backward_pass_fails_with_the_reason():
    ranks = start(
        """
        from torch import nn
        from torch.nn.parallel import DistributedDataParallel as DDP
        group = new(timeout=600)
        net = DDP(nn.Sequential(*[nn.Linear(500, 500) for _ in range(20)]), process_group=group, bucket_cap_mb=1)
        print("READY", flush=True)
        try:
            while True:
                net(torch.randn(4, 500)).sum().backward()
        except RuntimeError as error:
            print("LOST", time.time(), str(error).replace("\\n", " "), flush=True)
            os._exit(9)
        """,
        2,
    )
    kill_at_work(ranks, 1)
    codes, outputs = finish(ranks, 60)
    assert codes[0] == 9, (codes, outputs)
    assert "rank 1 is gone" in outputs[0], outputs


def test_communicators_that_a_rank_does_not_join_time_out():
    outputs = run(
        """
        if rank == 0:
            start = time.monotonic()
            try:
                new(timeout=5)
            except RuntimeError as error:
                print("AFTER", time.monotonic() - start, error, flush=True)
        else:
            time.sleep(12)
        os._exit(0)
        """,
        2,
    )
    assert "ranks [1] did not come" in outputs[0]
    assert float(outputs[0].split("AFTER ")[1].split()[0]) < 10, outputs
