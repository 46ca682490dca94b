"""Load the next item while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(load: Callable[[int], T], indices: Iterable[int]) -> Iterator[tuple[int, T]]:
    """Yield ``(index, load(index))`` in order; the next one is loaded by a thread meanwhile.

    At most two items are in memory: the one that was yielded and the one after it. Decoding a picture releases the
    interpreter, so it runs beside the net. What ``load`` raises is raised when its item is due.
    """
    todo = iter(indices)
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as thread:
        waiting: tuple[int, Future[T]] | None = None
        for index in todo:
            following = (index, thread.submit(load, index))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
