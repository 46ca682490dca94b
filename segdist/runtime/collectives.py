"""How ranks exchange tensors: gloo for control, and gloo or oneCCL for gradients.

The default process group is always gloo: it has object collectives, barriers with a time-out and errors when a peer is
gone, none of which oneCCL has on CPUs. Where oneCCL is used it carries the gradients, over a group of its own.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.utils._pytree import tree_leaves, tree_map_only

from segdist.config import ConfigError
from segdist.runtime.rendezvous import connect, open_store
from segdist.runtime.watchdog import Watchdog
from segdist.system.ranks import PEER, Ranks
from segdist.system.redirect import STDOUT, redirect_fd

T = TypeVar("T")

BINDING = "oneccl_bindings_for_pytorch"
_LATER = datetime.timedelta(seconds=10)
"""So much later than the watchdog, which knows who is late, gloo gives up by itself."""
INSTALL = (
    'python -m pip install "oneccl-bind-pt==2.8.0" --extra-index-url URL, where URL is Intel\'s wheel index for CPUs '
    "(it stands in the README of github.com/intel/torch-ccl)"
)


def choose_backend(wanted: str, world: int, ccl_installed: bool) -> tuple[str, str]:
    """``("ccl" | "gloo" | "none", why)``; pure.

    Raises:
        ConfigError: for "ccl" without its binding, with the line that installs it.
    """
    if wanted == "ccl" and not ccl_installed:
        raise ConfigError(f"--collectives ccl: {BINDING} is not installed; {INSTALL}")
    if world == 1:
        return "none", "a single rank"
    if wanted == "auto":
        return ("ccl", "oneCCL is installed") if ccl_installed else ("gloo", "oneCCL's binding is not installed")
    return wanted, "asked for"


def ccl_environment(environ: Mapping[str, str], interface: str, cores: int) -> dict[str, str]:
    """The variables oneCCL needs beyond those the user set already; pure.

    Raises:
        ConfigError: for the MPI transport outside Intel MPI, where oneCCL would hang.
    """
    under_intel_mpi = "I_MPI_HYDRA_UUID" in environ
    if environ.get("CCL_ATL_TRANSPORT") == "mpi" and not under_intel_mpi:
        raise ConfigError(
            "CCL_ATL_TRANSPORT=mpi: works under Intel MPI's mpirun only and hangs anywhere else; unset it, or set ofi"
        )
    wanted = {
        "CCL_ATL_TRANSPORT": "mpi" if under_intel_mpi else "ofi",
        "CCL_KVS_IFACE": interface,
        "FI_TCP_IFACE": interface,
    }
    if cores == 1:
        wanted["CCL_YIELD"] = "sched_yield"  # oneCCL's busy wait would hold the rank's only core
    return {name: value for name, value in wanted.items() if name not in environ}


def interface_to(address: str, peer: str = "") -> str:
    """Name of the network interface that routes to ``address`` (a host name or an IP address; IPv4 before IPv6).

    Args:
        address: of the first node.
        peer: another node of the job, if there is one: many hosts know their own name as 127.0.1.1, and the first node
            would find no way to the others by its own.

    Raises:
        ConfigError: where the name does not resolve or no interface has the route.
    """
    try:
        own = _source_address(address)
        if peer and own.is_loopback:
            own = _source_address(peer)
    except OSError as error:
        raise ConfigError(f"MASTER_ADDR {address}: no route to it ({error}); give --interface NAME") from error
    if own.is_loopback:
        own = ipaddress.ip_address("127.0.0.1" if own.version == 4 else "::1")
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == str(own) for entry in addresses):
            return name
    raise ConfigError(f"MASTER_ADDR {address}: no interface has {own}; give --interface NAME")


def link_mbit(interface: str, folder: Path = Path("/sys/class/net")) -> int | None:
    """Speed of a network interface in Mbit/s, as its driver says (sysfs); None where it does not."""
    try:
        speed = int((folder / interface / "speed").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return speed if speed > 0 else None


def _source_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """This machine's address on the route to a host; a datagram socket picks it, and sends nothing."""
    problem: OSError | None = None
    found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    for family, kind, _, _, target in sorted(found, key=lambda one: one[0] != socket.AF_INET):
        try:
            with socket.socket(family, kind) as probe:
                probe.connect(target)
                return ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0])
        except OSError as error:
            problem = problem or error
    raise problem or OSError(f"{host} has no address")


class Collectives:
    """The operations the tasks need; with a single rank each is the identity and no process group is made.

    Args:
        ranks: who is asking.
        wanted: "auto", "ccl" or "gloo".
        interface: network interface, or "" for the one that routes to the first node.
        timeout: seconds until an operation that a rank does not join is an error.
        rendezvous_timeout: seconds until a rank that has not come at all is an error.

    Raises:
        ConfigError: for a backend that is not installed, or an environment without an address.
        RanksMissing: naming the ranks that did not come.
    """

    def __init__(
        self, ranks: Ranks, wanted: str, interface: str = "", timeout: int = 600, rendezvous_timeout: int = 180
    ) -> None:
        self.ranks = ranks
        self.backend, self.reason = choose_backend(wanted, ranks.world, importlib.util.find_spec(BINDING) is not None)
        self.gradient_group: dist.ProcessGroup | None = None
        self.watchdog: Watchdog | None = None
        self._timeout = datetime.timedelta(seconds=timeout)
        if self.backend == "none":
            return
        master = ranks.master or os.environ.get("MASTER_ADDR", "")
        if not master or "MASTER_PORT" not in os.environ:
            raise ConfigError(
                f"{ranks.world} ranks by {ranks.source}, but MASTER_ADDR and MASTER_PORT are not set; "
                "set them to a host and a free port of the first node, or start with python -m segdist.launch"
            )
        interface = interface or interface_to(master, os.environ.get(PEER, ""))
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        if self.backend == "ccl":
            os.environ.update(ccl_environment(os.environ, interface, torch.get_num_threads()))
            importlib.import_module(BINDING)  # registers the backend
        port = _port(os.environ["MASTER_PORT"])
        store = open_store(ranks, master, port, rendezvous_timeout, os.environ)
        with redirect_fd(STDOUT):  # gloo tells how many peers it is connected to, once per rank and group
            dist.init_process_group(
                "gloo",
                store=PrefixStore("group", store),
                rank=ranks.rank,
                world_size=ranks.world,
                timeout=self._timeout + _LATER,
            )
            dist.all_reduce(torch.zeros(1))
        self.gradient_group = dist.group.WORLD
        if self.backend == "ccl":
            self.gradient_group = dist.new_group(backend="ccl", timeout=self._timeout)

        self.watchdog = Watchdog(ranks, connect(master, port, rendezvous_timeout, os.environ), timeout)
        self.watchdog.start()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Add ``tensor`` over all ranks, in place, on every rank."""
        if self.backend != "none":
            dist.all_reduce(tensor)
        return tensor

    def begin_all_reduce(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin to add ``tensor`` over all ranks, in place; what is returned waits for it, and gives it."""
        if self.backend == "none":
            return lambda: tensor
        work = dist.all_reduce(tensor, async_op=True)

        def wait() -> Tensor:
            work.wait()
            return tensor

        return wait

    def all_gather(self, value: Any) -> list[Any]:
        """The (picklable) values of all ranks, in their order, on every rank."""
        if self.backend == "none":
            return [value]
        values: list[Any] = [None] * self.ranks.world
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Rank 0's value, nested dicts and lists of plain data and CPU tensors, on every rank; the others' is ignored.

        One tensor after the other, so that no rank holds a second copy of it all.
        """
        if self.backend == "none":
            return value
        own = self.ranks.rank == 0
        outline = self.all_gather(tree_map_only(Tensor, lambda t: t.to("meta"), value) if own else None)[0]
        whole = value if own else tree_map_only(Tensor, _empty_on_cpu, outline)
        for tensor in tree_leaves(whole):
            if isinstance(tensor, Tensor):
                dist.broadcast(tensor, src=0)
        result: T = whole
        return result

    def barrier(self) -> None:
        """Wait until every rank is here; an error after the time-out names those that are not (on rank 0)."""
        if self.backend != "none":
            dist.monitored_barrier(timeout=self._timeout, wait_all_ranks=True)

    def new_group(self) -> dist.ProcessGroup:
        """Another gloo group of all ranks, for exchanges that may cross those of the gradients."""
        group = dist.new_group(backend="gloo", timeout=self._timeout)
        assert isinstance(group, dist.ProcessGroup)
        return group

    def close(self) -> None:
        """Leave the process groups."""
        if self.watchdog is not None:
            dist.barrier()  # none is gone while another may still look for it
            self.watchdog.close()
            dist.destroy_process_group()


def _empty_on_cpu(outline: Tensor) -> Tensor:
    return torch.empty_like(outline, device="cpu", memory_format=torch.preserve_format)


def _port(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"MASTER_PORT={text!r}: must be a port number; give a free one of the first node")
    return int(text)
