"""Which backend carries the gradients, what oneCCL needs around it, and the operations over real processes."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest

from segdist.config import ConfigError
from segdist.runtime.collectives import ccl_environment, choose_backend, interface_to
from segdist.system.ranks import Ranks, rank_environment

pytestmark = pytest.mark.slow  # trains, or starts many processes


@pytest.mark.parametrize(
    ("wanted", "world", "installed", "expected"),
    [
        ("auto", 2, True, ("ccl", "oneCCL is installed")),
        ("auto", 2, False, ("gloo", "oneCCL's binding is not installed")),
        ("gloo", 2, True, ("gloo", "asked for")),
        ("ccl", 2, True, ("ccl", "asked for")),
        ("auto", 1, True, ("none", "a single rank")),
    ],
)
def test_auto_takes_oneccl_where_it_is_installed(wanted, world, installed, expected):
    assert choose_backend(wanted, world, installed) == expected


@pytest.mark.parametrize("world", [1, 2])
def test_ccl_without_its_binding_is_an_error_with_the_install_line(world):
    with pytest.raises(ConfigError, match='--collectives ccl: .* python -m pip install "oneccl-bind-pt==2.8.0"'):
        choose_backend("ccl", world, False)


def test_oneccl_gets_its_transport_and_interface_but_never_against_the_user():
    assert ccl_environment({}, "eth0", 8) == {
        "CCL_ATL_TRANSPORT": "ofi",
        "CCL_KVS_IFACE": "eth0",
        "FI_TCP_IFACE": "eth0",
    }
    assert ccl_environment({"I_MPI_HYDRA_UUID": "1", "FI_TCP_IFACE": "ib0"}, "eth0", 1) == {
        "CCL_ATL_TRANSPORT": "mpi",
        "CCL_KVS_IFACE": "eth0",
        "CCL_YIELD": "sched_yield",
    }


def test_the_mpi_transport_outside_intel_mpi_is_refused_before_it_hangs():
    with pytest.raises(ConfigError, match="CCL_ATL_TRANSPORT=mpi: works under Intel MPI's mpirun only"):
        ccl_environment({"CCL_ATL_TRANSPORT": "mpi"}, "eth0", 8)


def test_the_interface_is_the_one_that_routes_there():
    assert interface_to("127.0.0.1") == interface_to("localhost") == "lo"
    with pytest.raises(ConfigError, match="MASTER_ADDR no-such-host.invalid: no route to it .* give --interface"):
        interface_to("no-such-host.invalid")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_ranks(body, world, timeout=120):
    """Run ``body`` in ``world`` real processes; gives their exit codes and outputs."""
    code = "from segdist.runtime.collectives import Collectives\nimport torch, sys\n" + textwrap.dedent(body)
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"rank, world = {rank}, {world}\n{code}"],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **rank_environment(Ranks(rank, world, rank, world), port),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def test_three_ranks_add_and_gather():
    codes, outputs = run_ranks(
        """
        import os
        from segdist.system.ranks import detect_ranks
        c = Collectives(detect_ranks(os.environ), "gloo")
        assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
        big = 2**60 + 1  # exact in int64 only
        total = c.all_reduce(torch.tensor([rank, big]))
        assert total.tolist() == [3, 3 * big], total
        assert c.all_gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        c.barrier()
        c.close()
        """,
        3,
    )
    assert codes == [0, 0, 0], outputs


def test_rank_0_gives_a_state_to_the_others_as_it_has_it():
    codes, outputs = run_ranks(
        """
        import os
        from segdist.system.ranks import detect_ranks
        c = Collectives(detect_ranks(os.environ), "gloo")
        def state():
            torch.manual_seed(5)
            wide = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
            return {"step": 7, "weights": {"a": wide, "n": torch.tensor(3)}, "ranks": [{"rng": torch.get_rng_state()}],
                    "none": None, "empty": torch.zeros(0, 2), "half": torch.ones(3, dtype=torch.bfloat16)}
        got, expected = c.broadcast(state() if rank == 0 else None), state()
        assert list(got) == list(expected) and got["step"] == 7 and got["none"] is None
        pairs = [(got["weights"][n], expected["weights"][n]) for n in "an"]
        pairs += [(got[n], expected[n]) for n in ("empty", "half")]
        pairs += [(got["ranks"][0]["rng"], expected["ranks"][0]["rng"])]
        for one, other in pairs:
            assert one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other), (one, other)
        c.close()
        """,
        2,
    )
    assert codes == [0, 0], outputs


def test_a_rank_that_does_not_come_is_named_after_the_time_out():
    codes, outputs = run_ranks(
        """
        import os
        from segdist.system.ranks import detect_ranks
        c = Collectives(detect_ranks(os.environ), "gloo", timeout=3)
        if rank == 0:
            c.barrier()
        else:
            sys.stdin.read()  # until rank 0 has ended
        """,
        2,
    )
    assert codes[0] != 0
    assert "Rank 1" in outputs[0] or "Ranks 1" in outputs[0] or "rank 1" in outputs[0]


def test_ranks_without_an_address_are_told_what_to_set(monkeypatch):
    from segdist.runtime.collectives import Collectives

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="2 ranks by MPI .* MASTER_ADDR and MASTER_PORT are not set"):
        Collectives(Ranks(0, 2, 0, 2, 0, "MPI (PMI)"), "gloo")
