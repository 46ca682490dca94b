"""Writing beside the training: a copy of the state is taken, and a thread writes it while the next steps run."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NICENESS = 10
"""What the writing thread adds to its niceness: all cores are busy with the training, whose threads wait for the
slowest of them at every layer."""


class Snapshot:
    """A copy of nested dicts and lists with tensors in them, into memory that is kept from one copy to the next."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Tensor] = {}

    def take(self, state: Any) -> Any:
        """The copy; it is good until the next one is taken."""
        sources: list[Tensor] = []
        targets: list[Tensor] = []
        copied = self._copy(state, (), sources, targets)
        with torch.no_grad():
            torch._foreach_copy_(targets, sources)
        return copied

    def _copy(self, value: Any, place: tuple[Any, ...], sources: list[Tensor], targets: list[Tensor]) -> Any:
        if isinstance(value, Tensor):
            kept = self._kept.get(place)
            if kept is None or (kept.dtype, kept.shape, kept.stride()) != (value.dtype, value.shape, value.stride()):
                kept = self._kept[place] = torch.empty_like(value, memory_format=torch.preserve_format)
            sources.append(value.detach())
            targets.append(kept)
            return kept
        if isinstance(value, dict):
            return {key: self._copy(item, (*place, key), sources, targets) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._copy(item, (*place, index), sources, targets) for index, item in enumerate(value)]
        return value


class AsyncWriter:
    """Does one piece of work at a time on a thread of its own; ``seconds`` has how long each took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether the last work ended with an error, which :meth:`wait` will raise."""
        return self._error is not None

    def start(self, work: Callable[[], None]) -> None:
        """Begin with ``work``; the one before must be done."""
        assert self._thread is None

        def body() -> None:
            began = time.monotonic()
            try:
                with contextlib.suppress(OSError):  # a sandbox that forbids it costs speed only
                    own = threading.get_native_id()  # on Linux each thread has a priority of its own
                    os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + NICENESS)
                work()
            except BaseException as error:
                self._error = error
            self.seconds.append(time.monotonic() - began)

        self._thread = threading.Thread(target=body, name="writer")
        self._thread.start()

    def join(self) -> None:
        """Until the work is done, well or not."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Until the work is done; raises the error with which it ended."""
        self.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
