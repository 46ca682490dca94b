"""Cores are shared out once, and no rank has more threads than cores."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdist.system.affinity import core_slice, physical_cores

pytestmark = pytest.mark.slow  # trains, or starts many processes


def sysfs(layout):
    """A reader of /sys for ``{cpu: (socket, core)}``."""

    def read(path):
        cpu, name = int(path.split("/")[5].removeprefix("cpu")), path.rsplit("/", 1)[1]
        if cpu not in layout:
            raise FileNotFoundError(path)
        return f"{layout[cpu][name == 'core_id']}\n"

    return read


def test_of_two_hyper_threads_one_is_used_and_sockets_stay_together():
    # as Linux numbers a two-socket machine: the second hyper-threads come after all first ones
    layout = {cpu: (cpu // 2 % 2, cpu % 2) for cpu in range(8)}
    assert physical_cores(range(8), sysfs(layout)) == [0, 1, 2, 3]
    assert physical_cores([1, 5, 6, 7], sysfs(layout)) == [1, 6, 7]


def test_where_the_kernel_does_not_say_every_cpu_is_a_core():
    assert physical_cores([3, 1], sysfs({})) == [1, 3]


@given(st.integers(1, 128), st.integers(1, 64))
def test_shares_are_disjoint_and_even_where_there_are_enough_cores(cores, ranks):
    parts = [core_slice(range(cores), rank, ranks) for rank in range(ranks)]
    assert all(parts)
    if cores >= ranks:
        assert [core for part in parts for core in part] == list(range(cores))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    else:
        assert all(len(part) == 1 for part in parts)


@pytest.mark.parametrize(("wanted", "expected"), [(0, 2), (1, 1), (64, 2)])
def test_a_rank_is_pinned_and_never_has_more_threads_than_its_cores(wanted, expected):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs 2 cores")
    code = (
        "import os; from segdist.system.affinity import pin_cores\n"
        f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2]); cores = pin_cores(0, 1, {wanted})\n"
        "assert set(cores) == os.sched_getaffinity(0)\n"
        "import torch; print(torch.get_num_threads(), os.environ['MKL_NUM_THREADS'], len(cores))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected)] * 3


@pytest.mark.parametrize(("own", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_asleep_unless_the_user_says_otherwise(own, expected):
    code = (
        "import sys; from segdist.system.affinity import pin_cores; environ = eval(sys.argv[1])\n"
        "pin_cores(0, 1, 1, environ); print(environ['OMP_WAIT_POLICY'], environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", code, repr(own)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "1"]
