"""The process group: torch's collective operations on oneCCL's."""

from __future__ import annotations

import datetime
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import Work  # torch.distributed has it, but hides it from mypy

from segdist.runtime.ccl.library import MAX, MIN, PROD, SUM, TYPES, CclError, Communicator
from segdist.runtime.ccl.peers import Peers
from segdist.runtime.ccl.transport import prepare

_REDUCTIONS = {
    dist.ReduceOp.SUM: SUM,
    dist.ReduceOp.AVG: SUM,
    dist.ReduceOp.PRODUCT: PROD,
    dist.ReduceOp.MIN: MIN,
    dist.ReduceOp.MAX: MAX,
}
_MISSING_S = 0.002


def register() -> None:
    """Make ``backend="segdist_ccl"`` known to torch.distributed; once is enough."""
    if "SEGDIST_CCL" not in dist.Backend._plugins:
        dist.Backend.register_backend("segdist_ccl", OneCclGroup, devices=["cpu"])


class OneCclGroup(dist.ProcessGroup):
    """Collective operations of CPU tensors over oneCCL, in the order in which they are called.

    An operation that is not done ``timeout`` after its call, or whose peer is gone, fails, and with it all later ones:
    the group is broken then, as its ranks no longer agree on what is next.
    """

    def __init__(self, store: Any, rank: int, size: int, timeout: datetime.timedelta) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]  # its stub names another overload
        self._timeout = timeout.total_seconds()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._broken: Exception | None = None
        self._ready: torch.futures.Future[None] = torch.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(store, rank, size, timeout), name="oneccl", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._broken is not None:
            raise self._broken

    # What torch calls ------------------------------------------------------------------------------------------

    def getBackendName(self) -> str:
        return "segdist_ccl"

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> _Work:  # type: ignore[override]
        (tensor,) = tensors
        reduction = getattr(opts, "reduceOp", dist.ReduceOp.SUM)
        flat = _flat(tensor)
        return self._call(
            "allreduce", flat, flat, flat.numel(), TYPES[flat.dtype], _code(reduction),
            result=[tensor], after=lambda: _finish(tensor, flat, reduction, self.size()),
        )  # fmt: skip

    def allreduce_coalesced(self, tensors: list[Tensor], opts: Any = None) -> _Work:
        works = [self.allreduce([tensor], opts) for tensor in tensors]
        works[-1].value = list(tensors)
        return works[-1]

    def broadcast(self, tensors: list[Tensor], opts: Any) -> _Work:  # type: ignore[override]
        (tensor,) = tensors
        flat = _flat(tensor)
        return self._call(
            "broadcast", flat, flat.numel(), TYPES[flat.dtype], opts.rootRank,
            result=[tensor], after=lambda: _finish(tensor, flat),
        )  # fmt: skip

    def reduce(self, tensors: list[Tensor], opts: Any) -> _Work:  # type: ignore[override]
        (tensor,) = tensors
        flat = _flat(tensor)
        total = torch.empty_like(flat)

        def after() -> None:
            if self.rank() == opts.rootRank:
                _finish(tensor, total, opts.reduceOp, self.size())

        return self._call(
            "reduce", flat, total, flat.numel(), TYPES[flat.dtype], _code(opts.reduceOp), opts.rootRank,
            result=[tensor], after=after,
        )  # fmt: skip

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> _Work:  # type: ignore[override]
        (parts,), (own,) = outputs, inputs
        whole = torch.empty((self.size(), own.numel()), dtype=own.dtype)

        def after() -> None:
            for part, row in zip(parts, whole):
                part.copy_(row.view(part.shape))

        return self._gather(whole, own, outputs, after)

    def _allgather_base(self, output: Tensor, own: Tensor, opts: Any = None) -> _Work:
        whole = _flat(output)
        return self._gather(whole, own, [output], lambda: _finish(output, whole))

    def allgather_into_tensor_coalesced(self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None) -> _Work:
        works = [self._allgather_base(output, own) for output, own in zip(outputs, inputs)]
        works[-1].value = list(outputs)
        return works[-1]

    def _gather(self, whole: Tensor, own: Tensor, result: list[Any], after: Callable[[], None]) -> _Work:
        flat = _flat(own)
        return self._call("allgather", flat, whole, flat.numel(), TYPES[flat.dtype], result=result, after=after)

    def reduce_scatter(self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: Any = None) -> _Work:  # type: ignore[override]
        (own,), (parts,) = outputs, inputs
        return self._scatter(own, torch.cat([part.reshape(-1) for part in parts]), opts)

    def _reduce_scatter_base(self, output: Tensor, whole: Tensor, opts: Any = None) -> _Work:
        return self._scatter(output, whole, opts)

    def reduce_scatter_tensor_coalesced(self, outputs: list[Tensor], inputs: list[Tensor], opts: Any = None) -> _Work:
        works = [self._scatter(output, whole, opts) for output, whole in zip(outputs, inputs)]
        works[-1].value = list(outputs)
        return works[-1]

    def _scatter(self, own: Tensor, whole: Tensor, opts: Any) -> _Work:
        reduction = getattr(opts, "reduceOp", dist.ReduceOp.SUM)
        flat, out = _flat(whole), _flat(own)
        return self._call(
            "reduce_scatter", flat, out, out.numel(), TYPES[flat.dtype], _code(reduction),
            result=[own], after=lambda: _finish(own, out, reduction, self.size()),
        )  # fmt: skip

    def barrier(self, opts: Any = None) -> _Work:
        return self._call("barrier", result=[], after=lambda: None)

    def abort(self) -> None:
        """End what is waited for with an error."""
        self._fail(CclError("the group was aborted"))

    def shutdown(self) -> None:
        """Leave the group after what was called so far."""
        self._calls.put(None)
        self._thread.join(self._timeout)

    # The thread ------------------------------------------------------------------------------------------------

    def _call(self, name: str, *arguments: Tensor | int, result: list[Any], after: Callable[[], None]) -> _Work:
        call = _Call(name, arguments, after, time.monotonic() + self._timeout)
        work = _Work(call.ended, result)
        self._calls.put(call)
        return work

    def _run(self, store: Any, rank: int, size: int, timeout: datetime.timedelta) -> None:
        try:
            _meet(store, rank, size, timeout)
            prepare(store, rank, size)
            self._comm = Communicator(rank, size, store.set, lambda key: _look_up(store, key))
            peers = Peers(store, rank, size, self._fail)
        except Exception as error:
            self._broken = error
        self._ready.set_result(None)
        if self._broken is not None:
            return
        for call in iter(self._calls.get, None):
            if self._broken is None:
                try:
                    self._carry_out(call)
                except Exception as error:
                    self._fail(error)
            call.ended.set_result(self._broken)
        peers.close()
        if self._broken is None:
            self._comm.leave()

    def _carry_out(self, call: _Call) -> None:
        arguments = [each.data_ptr() if isinstance(each, Tensor) else each for each in call.arguments]
        operation = self._comm.start(call.name, *arguments)
        if not self._comm.wait(operation, call.deadline - time.monotonic()):
            raise CclError(f"oneCCL: {call.name} is not done after {self._timeout:g} s: a rank does not join it")
        call.after()

    def _fail(self, error: Exception) -> None:
        """From any thread: the first error is that of all operations from now on."""
        if self._broken is None:
            self._broken = error
            self._comm.abort()


class _Call:
    """An operation on its way through the thread; ``ended`` gets None or the error."""

    def __init__(
        self, name: str, arguments: tuple[Tensor | int, ...], after: Callable[[], None], deadline: float
    ) -> None:
        self.name, self.arguments, self.after, self.deadline = name, arguments, after, deadline
        self.ended: torch.futures.Future[Exception | None] = torch.futures.Future()


class _Work(Work):
    def __init__(self, ended: torch.futures.Future[Exception | None], result: list[Any]) -> None:
        super().__init__()
        self.value = result
        self._ended = ended
        self._future = ended.then(self._outcome)  # an error raised in here is one in C++ too, for DDP

    def _outcome(self, ended: torch.futures.Future[Exception | None]) -> list[Any]:
        error = ended.wait()
        if error is not None:
            raise error
        return self.value

    def wait(self, timeout: datetime.timedelta | None = None) -> bool:
        self._outcome(self._ended)
        return True

    def is_completed(self) -> bool:
        return self._future.done()

    def get_future(self) -> torch.futures.Future[list[Any]]:
        return self._future


def _meet(store: Any, rank: int, size: int, timeout: datetime.timedelta) -> None:
    """Wait for all ranks where waiting has a time-out; oneCCL's and MPI's own start has none that can be relied on."""
    store.set(f"here/{rank}", b"")
    missing = [f"here/{other}" for other in range(size)]
    try:
        store.wait(missing, timeout)
    except (dist.DistError, RuntimeError) as error:
        gone = [other for other in range(size) if not store.check([f"here/{other}"])]
        raise CclError(f"ranks {gone} did not come to the group within {timeout.total_seconds():g} s") from error


def _look_up(store: Any, key: str) -> bytes:
    """What is in the store now, empty where there is nothing; oneCCL asks again at once."""
    if store.check([key]):
        return store.get(key)
    time.sleep(_MISSING_S)
    return b""


def _code(reduction: Any) -> int:
    try:
        return _REDUCTIONS[getattr(reduction, "op", reduction)]
    except KeyError:
        raise CclError(f"oneCCL cannot do {reduction}") from None


def _flat(tensor: Tensor) -> Tensor:
    """The tensor's elements one after the other: its own memory where they already are."""
    if tensor.device.type != "cpu" or tensor.is_sparse or tensor.dtype not in TYPES:
        raise CclError(f"oneCCL cannot take a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}")
    return tensor.contiguous().view(-1)


def _finish(tensor: Tensor, flat: Tensor, reduction: Any = None, size: int = 1) -> None:
    if getattr(reduction, "op", reduction) == dist.ReduceOp.AVG:
        flat.div_(size) if flat.is_floating_point() else flat.div_(size, rounding_mode="trunc")
    if flat.data_ptr() != tensor.data_ptr():
        tensor.copy_(flat.view(tensor.shape))
