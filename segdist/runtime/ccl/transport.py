"""What oneCCL moves its messages with: libfabric alone ("ofi"), or Intel MPI on top of it ("mpi").

Between ranks of one machine Intel MPI goes through shared memory, and libfabric alone through the kernel's TCP. Where
mpirun did not start the ranks, they are each other's process manager.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segdist.runtime.ccl.pmi import ProcessManager

_started: list[Any] = []


def transport_environment(transport: str, interface: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that oneCCL, Intel MPI and libfabric need beyond those that the user set; pure.

    Args:
        transport: "mpi" or "ofi".
        interface: name of the network interface.
        environ: what is set already; it wins.
    """
    wanted = {
        "CCL_ATL_TRANSPORT": transport,
        "CCL_WORKER_OFFLOAD": "0",  # work in the caller's thread: no core is taken from the net
        "CCL_KVS_IFACE": interface,
        "FI_TCP_IFACE": interface,
        "CCL_LOG_LEVEL": "error",
    }
    if transport == "ofi":
        wanted["FI_PROVIDER"] = "tcp"
    return {name: value for name, value in wanted.items() if name not in environ}


def prepare(store: Any, rank: int, size: int, prefix: Path = Path(sys.prefix)) -> None:
    """Before the first group: find the libraries of the impi-rt package, and be there for MPI where it is asked for."""
    if _started:
        return
    os.environ.setdefault("FI_PROVIDER_PATH", str(prefix / "lib"))
    _started.append(ctypes.CDLL(str(prefix / "lib" / "libfabric.so.1"), mode=ctypes.RTLD_GLOBAL))
    if os.environ.get("CCL_ATL_TRANSPORT") != "mpi":
        return
    os.environ.setdefault("I_MPI_ROOT", str(prefix))
    if "PMI_FD" not in os.environ and "PMI_RANK" not in os.environ:
        _started.append(ProcessManager(store, rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", size))))
    _started.append(ctypes.CDLL(str(prefix / "lib" / "libmpi.so.12"), mode=ctypes.RTLD_GLOBAL))
