"""Who of a group is still there. oneCCL waits forever for a rank that is gone; the kernel knows at once.

Each rank holds a connection to rank 0. Where one breaks without a good-bye, rank 0 tells the others which rank is lost.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

_BYE = 0xFFFFFFFF
_HELLO_S = 2.0
_NUMBER = struct.Struct("!I")


class PeerLost(RuntimeError):
    """A rank's process has ended, or its machine no longer answers."""


class Peers:
    """Watches the connections of one group; ``lost`` is called once, by a thread, with the error.

    Args:
        store: where rank 0 says how it is reached.
        rank, size: who is asking, and of how many.
        lost: called when a rank is gone.
        patience: seconds for all ranks to connect.
    """

    def __init__(
        self, store: Any, rank: int, size: int, lost: Callable[[Exception], None], patience: float = 60
    ) -> None:
        self._lost = lost
        self._ranks: dict[socket.socket, int] = {}
        self._own_end, self._wake = socket.socketpair()
        if rank == 0:
            self._accept(store, size, patience)
        else:
            self._connect(store, rank, patience)
        self._thread = threading.Thread(target=self._watch, name="oneccl-peers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Part in good order."""
        for connection in self._ranks:
            with contextlib.suppress(OSError):
                connection.sendall(_NUMBER.pack(_BYE))
        self._wake.close()
        self._thread.join()
        for connection in self._ranks:
            connection.close()

    def _accept(self, store: Any, size: int, patience: float) -> None:
        secret = secrets.token_bytes(16)
        with socket.create_server((_own_address(), 0), backlog=size) as server:
            end = time.monotonic() + patience
            host, port = server.getsockname()
            store.set("peers", f"{host} {port} {secret.hex()}")
            while len(self._ranks) < size - 1:
                server.settimeout(max(end - time.monotonic(), 0.001))
                connection, _ = server.accept()
                connection.settimeout(_HELLO_S)  # a stranger who says nothing holds nobody up for long
                hello = _receive(connection, len(secret) + _NUMBER.size)
                if secrets.compare_digest(hello[: len(secret)], secret):
                    self._add(connection, _NUMBER.unpack(hello[len(secret) :])[0])
                else:
                    connection.close()

    def _connect(self, store: Any, rank: int, patience: float) -> None:
        host, port, secret = store.get("peers").decode().split()
        connection = socket.create_connection((host, int(port)), timeout=patience)
        connection.sendall(bytes.fromhex(secret) + _NUMBER.pack(rank))
        self._add(connection, 0)

    def _add(self, connection: socket.socket, rank: int) -> None:
        """Keep it, and have the kernel ask every few seconds whether the other machine is there."""
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        ):
            connection.setsockopt(level, option, value)
        self._ranks[connection] = rank

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for connection in (self._own_end, *self._ranks):
                selector.register(connection, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    found: Any = key.fileobj
                    if found is self._own_end:
                        return
                    connection = found
                    said = _receive(connection, _NUMBER.size)
                    if said and _NUMBER.unpack(said)[0] == _BYE:
                        selector.unregister(connection)
                        continue
                    gone = _NUMBER.unpack(said)[0] if said else self._ranks[connection]
                    for other in self._ranks:  # rank 0 has several, the others one
                        if other is not connection:
                            with contextlib.suppress(OSError):
                                other.sendall(_NUMBER.pack(gone))
                    self._lost(PeerLost(f"rank {gone} is gone: its process has ended, or its machine does not answer"))
                    return


def _receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or none where the connection is lost."""
    data = b""
    with contextlib.suppress(OSError):
        while len(data) < size:
            part = connection.recv(size - len(data))
            if not part:
                return b""
            data += part
        return data
    return b""


def _own_address() -> str:
    """This machine's address on the interface that gloo or oneCCL was told to use, else that of its name."""
    name = os.environ.get("FI_TCP_IFACE") or os.environ.get("GLOO_SOCKET_IFNAME")
    if not name:
        return socket.gethostbyname(socket.gethostname())
    return next(one.address for one in psutil.net_if_addrs()[name] if one.family == socket.AF_INET)
