"""oneCCL's C++ API through ctypes: what oneccl.cpp exports, with errors as exceptions."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import torch

from segdist.runtime.ccl.build import VERSION, find_built

TYPES = {
    torch.int8: 0,
    torch.uint8: 1,
    torch.bool: 1,
    torch.int16: 2,
    torch.int32: 4,
    torch.int64: 6,
    torch.float16: 8,
    torch.float32: 9,
    torch.float64: 10,
    torch.bfloat16: 11,
}
SUM, PROD, MIN, MAX = 0, 1, 2, 3

_SET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t)
_GET = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t)


class CclError(RuntimeError):
    """What oneCCL says went wrong."""


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded binding.

    Raises:
        CclError: where it was not built, or another version of oneCCL is there than it was built for.
        OSError: where oneCCL's libraries are missing.
    """
    built = find_built()
    if built is None:
        raise CclError("oneCCL's shim is not built: run python -m segdist.runtime.ccl.build")
    loaded = ctypes.CDLL(str(built))
    pointer, size, whole = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for name, result, arguments in (
        ("error", ctypes.c_char_p, ()),
        ("version", ctypes.c_char_p, ()),
        ("join", pointer, (whole, whole, _SET, _GET)),
        ("leave", None, (pointer,)),
        ("abort", None, (pointer,)),
        ("allreduce", pointer, (pointer, pointer, pointer, size, whole, whole)),
        ("reduce", pointer, (pointer, pointer, pointer, size, whole, whole, whole)),
        ("broadcast", pointer, (pointer, pointer, size, whole, whole)),
        ("allgather", pointer, (pointer, pointer, pointer, size, whole)),
        ("reduce_scatter", pointer, (pointer, pointer, pointer, size, whole, whole)),
        ("barrier", pointer, (pointer,)),
        ("wait", whole, (pointer, ctypes.c_double)),
        ("free", None, (pointer,)),
    ):
        function = getattr(loaded, f"oneccl_{name}")
        function.restype, function.argtypes = result, arguments
    found = loaded.oneccl_version().decode()
    if VERSION not in found:
        raise CclError(f"oneCCL {found} is loaded, {VERSION} is needed: pip install oneccl-cpu=={VERSION}")
    return loaded


class Communicator:
    """The ranks of one group; all methods but :meth:`abort` belong to one thread."""

    def __init__(self, rank: int, size: int, put: Callable[[str, bytes], None], get: Callable[[str], bytes]) -> None:
        self._library = library()
        self._lost: BaseException | None = None
        self._set, self._get = _SET(self._guarded_put(put)), _GET(self._guarded_get(get))  # oneCCL keeps them
        self._handle = self._library.oneccl_join(rank, size, self._set, self._get)
        if not self._handle:
            raise self._error() from self._lost

    def _guarded_put(self, put: Callable[[str, bytes], None]) -> Callable[..., int]:
        def call(key: bytes, value: ctypes.Array[ctypes.c_char], size: int) -> int:
            try:
                put(key.decode(), ctypes.string_at(value, size))
            except Exception as error:  # an exception cannot pass through C
                self._lost = error
                return -1
            return 0

        return call

    def _guarded_get(self, get: Callable[[str], bytes]) -> Callable[..., int]:
        def call(key: bytes, value: ctypes.Array[ctypes.c_char], room: int) -> int:
            try:
                found = get(key.decode())
            except Exception as error:
                self._lost = error
                return -1
            if len(found) > room:
                return -1
            ctypes.memmove(value, found, len(found))
            return len(found)

        return call

    def start(self, name: str, *arguments: int) -> int:
        """Start an operation of oneccl.cpp on this group; gives its handle, to be waited for and freed."""
        handle: int | None = getattr(self._library, f"oneccl_{name}")(self._handle, *arguments)
        if not handle:
            raise self._error()
        return handle

    def wait(self, operation: int, seconds: float) -> bool:
        """Whether the operation ended within so many seconds; frees it then."""
        ended = self._library.oneccl_wait(operation, seconds)
        if ended < 0:
            raise self._error()
        if ended:
            self._library.oneccl_free(operation)
        return bool(ended)

    def abort(self) -> None:
        """From any thread: what is waited for ends with an error."""
        self._library.oneccl_abort(self._handle)

    def leave(self) -> None:
        """Give the communicator back."""
        self._library.oneccl_leave(self._handle)

    def _error(self) -> CclError:
        return CclError(f"oneCCL: {self._library.oneccl_error().decode(errors='replace').strip()}")
