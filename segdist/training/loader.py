"""Batches from worker processes, by pipes: no shared memory, no sockets, and no wait without a limit.

torch hands tensors from process to process through files in /dev/shm, whose descriptors go over sockets in TMPDIR: a
small /dev/shm is a bus error, a long TMPDIR a wait for ever, and many batches too many open files. Arrays are copied
instead, which takes milliseconds of a step that takes seconds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segdist.config import ConfigError
from segdist.data.png import DataError
from segdist.system.shared_memory import lack_of_locks
from segdist.system.signals import StopFlag, leave_signals_to_the_rank

LOOK_S = 1.0
"""Seconds between two looks at whether to stop while a batch is waited for."""
STOP_S = 5.0
"""Seconds that a batch is still waited for after a signal that asks to stop."""
_LOCKS, _LOCKS_PER_WORKER = 9, 3
"""What the queues of a DataLoader take, and the event that ends it."""
_DEAD_WORKER = "DataLoader worker"

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class NoBatch(RuntimeError):
    """The workers gave no batch: they died, hang, or do not come before the process has to stop."""


def make_loader(dataset: Dataset[Any], steps: Any, workers: int, local_ranks: int) -> DataLoader[Any]:
    """A loader whose workers collate arrays; see :func:`iterate`.

    Args:
        dataset: gives tuples of arrays, or a DataError.
        steps: the indices of each batch, this rank's.
        workers: decoding processes, 0 for none.
        local_ranks: ranks of this node, which all have as many.

    Raises:
        ConfigError: where /dev/shm does not hold the locks of so many workers.
    """
    lack = lack_of_locks((_LOCKS + _LOCKS_PER_WORKER * workers) * local_ranks) if workers else None
    if lack is not None:
        raise ConfigError(
            f"--workers {workers}: {lack}; make it larger (mount -o remount,size=1G /dev/shm; a container takes "
            "--shm-size), or give --workers 0"
        )
    return DataLoader(
        dataset,
        collate_fn=_collate,
        batch_sampler=steps,
        num_workers=workers,
        worker_init_fn=leave_signals_to_the_rank,
        generator=torch.Generator(),  # the loader draws from it, and leaves the rank's random numbers alone
    )


def iterate(loader: DataLoader[Any], stop: StopFlag, timeout: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of all steps, as tensors.

    Args:
        loader: of :func:`make_loader`.
        stop: looked at while waiting.
        timeout: seconds that a batch may take.

    Raises:
        DataError: that the data set has given in place of an item.
        NoBatch: where the workers give none.
    """
    try:
        batches: Iterator[Arrays | DataError] = iter(loader)
    except OSError as error:  # the locks, once more, or no process can be started
        lack = lack_of_locks(_LOCKS + _LOCKS_PER_WORKER * loader.num_workers)
        raise NoBatch(f"--workers {loader.num_workers}: cannot be started ({lack or error})") from error
    reader = _Reader(batches) if loader.num_workers else None
    try:
        while True:
            batch = reader.next(loader.num_workers, stop, timeout) if reader else next(batches, None)
            if batch is None:
                return
            if isinstance(batch, DataError):
                raise batch
            images, labels = batch
            yield torch.from_numpy(images), torch.from_numpy(labels)
    finally:
        if reader:
            reader.abandoned.set()


class _Reader:
    """A thread that takes the batches from the workers: a pipe in which half a batch stands is read without a limit.

    The process ends without waiting for it.
    """

    def __init__(self, batches: Iterator[Arrays | DataError]) -> None:
        self.abandoned = threading.Event()
        self._batches = batches
        self._read: queue.Queue[Arrays | DataError | Exception | None] = queue.Queue(1)
        threading.Thread(target=self._run, name="batches", daemon=True).start()

    def _run(self) -> None:
        while not self.abandoned.is_set():
            item: Arrays | DataError | Exception | None
            try:
                item = next(self._batches, None)
            except Exception as error:
                item = error
            self._put(item)
            if item is None or isinstance(item, Exception):
                return

    def _put(self, item: Arrays | DataError | Exception | None) -> None:
        while not self.abandoned.is_set():
            try:
                self._read.put(item, timeout=LOOK_S)
                return
            except queue.Full:
                continue

    def next(self, workers: int, stop: StopFlag, timeout: float) -> Arrays | DataError | None:
        """The next batch; None after the last.

        Raises:
            NoBatch: where there is none for too long, or a worker has died.
        """
        began = time.monotonic()
        stopped = None
        while True:
            try:
                item = self._read.get(timeout=LOOK_S)
            except queue.Empty:
                item = self._lack(workers, began, stopped, timeout)
                stopped = time.monotonic() if stop and stopped is None else stopped
                if item is None:
                    continue
            except RuntimeError as error:  # torch's handler of SIGCHLD
                item = error
            if isinstance(item, Exception) and not isinstance(item, DataError):
                dead = dead_worker(item)
                raise item if dead is None else NoBatch(dead) from item
            return item

    @staticmethod
    def _lack(workers: int, began: float, stopped: float | None, timeout: float) -> NoBatch | None:
        now = time.monotonic()
        if stopped is not None and now - stopped >= STOP_S:
            return NoBatch(f"no batch has come from {workers} workers within {STOP_S:g} s after the signal to stop")
        if now - began >= timeout:
            return NoBatch(
                f"no batch has come from {workers} workers for {timeout:g} s (--timeout); "
                "look whether the storage of --data answers, or give --workers 0"
            )
        return None


def dead_worker(error: BaseException) -> str | None:
    """What to say where torch says, at whatever moment, that a worker has died; None for any other error."""
    text = str(error)
    if not (isinstance(error, RuntimeError) and text.startswith(_DEAD_WORKER)):
        return None
    return (
        f"a decoding process has died ({text.splitlines()[0].partition('. It is')[0].rstrip('. ')}); "
        "mostly memory has run out (see dmesg): give fewer --workers"
    )


def _collate(items: Iterable[Arrays | DataError]) -> Arrays | DataError:
    arrays: list[Arrays] = []
    for item in items:
        if isinstance(item, DataError):
            return item
        arrays.append(item)
    return np.stack([image for image, _ in arrays]), np.stack([label for _, label in arrays])
