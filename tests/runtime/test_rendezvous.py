"""The ranks meet, or those that do not come are named; over real processes."""

import os
import socket
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow  # trains, or starts many processes

CODE = """
import os, sys
from segdist.system.ranks import Ranks
from segdist.runtime.rendezvous import RanksMissing, open_store
rank, world, timeout = map(int, sys.argv[1:])
try:
    store = open_store(Ranks(rank, world, rank, world), "127.0.0.1", int(os.environ["PORT"]), timeout, os.environ)
except RanksMissing as missing:
    sys.exit(str(missing))
store.set(f"met/{rank}", "yes")
store.wait([f"met/{other}" for other in range(world)])
store.set(f"seen/{rank}", "yes")
store.wait([f"seen/{other}" for other in range(world)] if rank == 0 else [])
"""


def meet(ranks, world, timeout):
    """Start some of the ranks; gives their exit codes and what they said, and the seconds it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, str(rank), str(world), str(timeout)],
            env={**os.environ, "PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]
    said = [process.communicate(timeout=90)[1] for process in processes]
    return [process.returncode for process in processes], said, time.monotonic() - start


def test_all_ranks_meet():
    assert meet([0, 1, 2], 3, 60)[0] == [0, 0, 0]


def test_every_rank_that_came_names_those_that_did_not():
    codes, said, seconds = meet([0, 2], 5, 4)
    assert codes == [1, 1]
    for text in said:
        assert "ranks 1, 3, 4 did not come within 4 s; 2 of 5 ranks came" in text
    assert seconds < 60


@pytest.mark.parametrize("rank", [1])
def test_without_rank_0_it_is_named(rank):
    codes, said, _ = meet([rank], 2, 2)
    assert codes == [1]
    assert "rank 0 did not come within 2 s: nobody answers at 127.0.0.1:" in said[0]
