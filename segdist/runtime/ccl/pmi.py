"""Lets an MPI library start in ranks that no mpirun started: its process manager, in a thread, over torch's store.

A rank that mpirun starts finds a socket in PMI_FD and asks there, in lines of text (PMI version 1), who the others are.
Here the rank answers itself, from the store that all ranks have anyway.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

_KVS = "segdist"


class ProcessManager:
    """Answers one rank's MPI library; it must live until MPI is initialised, and is asked again at its end."""

    def __init__(self, store: Any, rank: int, size: int, local_size: int) -> None:
        self._store, self._rank, self._size = store, rank, size
        self._barriers = 0
        self._puts: list[tuple[str, str]] = []
        nodes = -(-size // local_size)
        self._fixed = {"PMI_process_mapping": f"(vector,(0,{nodes},{local_size}))"}
        self._ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        self._theirs = theirs
        os.environ.update(PMI_FD=str(theirs.fileno()), PMI_RANK=str(rank), PMI_SIZE=str(size), PMI_SPAWNED="0")
        self._thread = threading.Thread(target=self._serve, name="pmi", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._ours.makefile("rw", encoding="ascii", newline="\n") as line:
            for text in line:
                asked = dict(part.split("=", 1) for part in text.split() if "=" in part)
                answer = self._answer(asked)
                if answer:
                    line.write(answer + "\n")
                    line.flush()

    def _answer(self, asked: dict[str, str]) -> str:
        command = asked.get("cmd")
        if command == "init":
            return "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0"
        if command == "get_maxes":
            return "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=4096"
        if command == "get_appnum":
            return "cmd=appnum appnum=0"
        if command == "get_my_kvsname":
            return f"cmd=my_kvsname kvsname={_KVS}"
        if command == "get_universe_size":
            return f"cmd=universe_size size={self._size}"
        if command == "put":
            self._store.set(f"pmi/{asked['key']}", asked["value"])
            return "cmd=put_result rc=0 msg=success"
        if command == "get":
            return self._get(asked["key"])
        if command == "barrier_in":
            self._barrier()
            return "cmd=barrier_out"
        if command == "finalize":
            return "cmd=finalize_ack"
        return ""

    def _get(self, key: str) -> str:
        if key in self._fixed:
            return f"cmd=get_result rc=0 msg=success value={self._fixed[key]}"
        if not self._store.check([f"pmi/{key}"]):
            return "cmd=get_result rc=-1 msg=key_not_found value=unknown"
        return f"cmd=get_result rc=0 msg=success value={self._store.get(f'pmi/{key}').decode()}"

    def _barrier(self) -> None:
        self._barriers += 1
        name = f"pmi-barrier/{self._barriers}"
        if self._store.add(name, 1) == self._size:
            self._store.set(f"{name}/open", "")
        self._store.wait([f"{name}/open"])
