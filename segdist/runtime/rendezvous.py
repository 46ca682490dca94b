"""The ranks meet before the first collective operation, so that one that does not come is named, and soon."""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Mapping

import torch.distributed as dist
from torch._C._distributed_c10d import (  # torch.distributed has them, but hides them from mypy
    PrefixStore,
    Store,
    TCPStore,
)

from segdist.system.ranks import Ranks

_POLL_S = 0.05
_LINGER_S = 10.0


class RanksMissing(Exception):
    """Not every rank came to the rendezvous; the message names those that did not."""


def open_store(ranks: Ranks, address: str, port: int, timeout: int, environ: Mapping[str, str]) -> Store:
    """The store of the job, after every rank has announced itself in it. Rank 0 serves it, and says who is missing.

    Under torchrun, whose agent serves a store at that address already, rank 0 is a client too.

    Raises:
        RanksMissing: after ``timeout`` seconds, on all ranks that came, naming those that did not.
    """
    served = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        tcp = TCPStore(
            address,
            port,
            ranks.world,
            is_master=ranks.rank == 0 and not served,
            timeout=datetime.timedelta(seconds=timeout),
            wait_for_workers=False,
        )
    except dist.DistNetworkError as error:
        if ranks.rank == 0 and not served:
            raise
        raise RanksMissing(f"rank 0 did not come within {timeout} s: nobody answers at {address}:{port}") from error
    store = PrefixStore(_prefix(environ), tcp)
    verdict = (
        _name_missing(store, ranks.world, timeout) if ranks.rank == 0 else _read_verdict(store, ranks.rank, timeout)
    )
    if verdict:
        raise RanksMissing(verdict)
    return store


def connect(address: str, port: int, timeout: int, environ: Mapping[str, str]) -> Store:
    """A second connection to a store that is open already."""
    tcp = TCPStore(address, port, is_master=False, timeout=datetime.timedelta(seconds=timeout))
    return PrefixStore(_prefix(environ), tcp)


def _prefix(environ: Mapping[str, str]) -> str:
    return f"segdist/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _name_missing(store: Store, world: int, timeout: int) -> str:
    missing, end = list(range(1, world)), time.monotonic() + timeout
    while missing and time.monotonic() < end:
        missing = [rank for rank in missing if not store.check([_here(rank)])]
        if missing:
            time.sleep(_POLL_S)  # the store cannot tell which of several keys came
    verdict = ""
    if missing:
        came = sorted({store.get(_here(rank)).decode() for rank in range(1, world) if rank not in missing})
        verdict = (
            f"rank{'s' * (len(missing) > 1)} {_list(missing)} did not come within {timeout} s; "
            f"{world - len(missing)} of {world} ranks came, rank 0 on {socket.gethostname()}"
            + (f", others on {', '.join(came)}" if came else "")
            + "; look at the logs of the missing ones, or give a longer --rendezvous-timeout"
        )
    store.set("verdict", verdict or "all")
    if missing:  # the store dies with this rank: let those that came read it
        end = time.monotonic() + _LINGER_S
        told = [f"told/{rank}" for rank in range(1, world) if rank not in missing]
        while told and not store.check(told) and time.monotonic() < end:
            time.sleep(_POLL_S)
    return verdict


def _read_verdict(store: Store, rank: int, timeout: int) -> str:
    store.set(_here(rank), socket.gethostname())
    try:
        store.wait(["verdict"], datetime.timedelta(seconds=timeout + _LINGER_S))
        verdict = store.get("verdict").decode()
        store.set(f"told/{rank}", "yes")
    except (dist.DistError, RuntimeError) as error:
        return f"rank 0 was lost while the ranks met ({str(error).splitlines()[0]}); look at its log"
    return "" if verdict == "all" else verdict


def _here(rank: int) -> str:
    return f"here/{rank}"


def _list(numbers: list[int]) -> str:
    """``0, 1, 2, 5`` as people write it, cut short where it is long."""
    shown = ", ".join(map(str, numbers[:16]))
    return shown if len(numbers) <= 16 else f"{shown}, … ({len(numbers)} in all)"
