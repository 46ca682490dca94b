"""Which memory allocator a process starts with.

A training step takes and gives back hundreds of large blocks. glibc returns them to the kernel each time, and the page
faults of taking them anew cost up to a third of the step; an allocator that keeps them does not. It must be chosen
before the process starts: by LD_PRELOAD (ld.so(8)), or glibc's own tunables (GLIBC_TUNABLES, mallopt(3)).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segdist.system.procfs import ReadText, read_text

ALLOCATORS = ("glibc", "tuned", "tcmalloc", "jemalloc")
_LIBRARIES = {
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc_minimal.so", "libtcmalloc.so"),
    "jemalloc": ("libjemalloc.so.2", "libjemalloc.so"),
}
INSTALL = {
    "tcmalloc": "apt-get install libtcmalloc-minimal4, dnf install gperftools-libs, or conda install gperftools",
    "jemalloc": "apt-get install libjemalloc2, dnf install jemalloc, or conda install jemalloc",
}
_SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/lib64")
_TUNABLES = {
    "glibc.malloc.mmap_max": "0",  # no block is mapped by itself, so none is unmapped
    "glibc.malloc.trim_threshold": str(1 << 40),  # nor is the heap's end given back
    "glibc.malloc.top_pad": str(128 << 20),
    "glibc.malloc.hugetlb": "1",  # huge pages where the kernel leaves them to madvise; from glibc 2.35 on
}
_VARIABLES = {
    "tcmalloc": {},
    "jemalloc": {"MALLOC_CONF": "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always"},
}
"""With its defaults jemalloc gives large blocks back at once, as glibc does."""

FindLibrary = Callable[[str], Path | None]


@dataclass(frozen=True)
class Allocator:
    """One of :data:`ALLOCATORS`, the variables a process must be started with to have it, and why it was chosen."""

    name: str
    reason: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find_allocator(name: str, folders: Sequence[str] | None = None) -> Path | None:
    """The library of "tcmalloc" or "jemalloc": in this Python's own prefix (conda), then the system's folders."""
    own = [str(Path(prefix) / "lib") for prefix in (sys.prefix, os.environ.get("CONDA_PREFIX", "")) if prefix]
    for folder in (*own, *_SYSTEM_FOLDERS) if folders is None else folders:
        for file in _LIBRARIES[name]:
            path = Path(folder) / file
            if path.is_file():
                return path
    return None


def choose_allocator(
    wanted: str, environ: Mapping[str, str], find: FindLibrary = find_allocator, known: str | None = None
) -> Allocator:
    """Decide the allocator, and the variables that bring it.

    Args:
        wanted: "auto" or one of :data:`ALLOCATORS`.
        environ: what this process was started with; an allocator that is preloaded already is kept by "auto".
        find: finds an allocator's library on this machine.
        known: what "auto" means where it was measured.

    Raises:
        LookupError: for one that is asked for and not installed, with the line that installs it.
    """
    if wanted == "auto":
        preloaded = preloaded_allocator(environ.get("LD_PRELOAD", ""))
        if preloaded is not None:
            return Allocator(preloaded, "LD_PRELOAD has it")
        if known is not None and (known in ("glibc", "tuned") or find(known) is not None):
            return _of(known, "measured on this kind of node", environ, find)
        if known is not None:
            return _of("tuned", f"{known} was measured to be faster, but is not installed here", environ, find)
        if find("tcmalloc") is not None:
            return _of("tcmalloc", "it keeps large blocks", environ, find)
        return _of("tuned", "tcmalloc is not installed", environ, find)
    if wanted in _LIBRARIES and find(wanted) is None:
        raise LookupError(
            f"--allocator {wanted}: its library is not installed; {INSTALL[wanted]}, or give --allocator tuned"
        )
    return _of(wanted, "asked for", environ, find)


def _of(name: str, reason: str, environ: Mapping[str, str], find: FindLibrary) -> Allocator:
    if name == "glibc":
        return Allocator(name, reason)
    if name == "tuned":
        own = environ.get("GLIBC_TUNABLES", "")
        ours = [f"{key}={value}" for key, value in _TUNABLES.items() if f"{key}=" not in own]
        return Allocator(name, reason, {"GLIBC_TUNABLES": ":".join(filter(None, (own, *ours)))})
    library = find(name)
    assert library is not None
    own = environ.get("LD_PRELOAD", "")
    already = library.name in own
    variables = {key: value for key, value in _VARIABLES[name].items() if key not in environ}
    preload = own if already else " ".join(filter(None, (str(library), own)))
    return Allocator(name, reason, {"LD_PRELOAD": preload, **variables})


def preloaded_allocator(ld_preload: str) -> str | None:
    """The allocator that a value of LD_PRELOAD (files between blanks or colons) names, if it names one."""
    files = [Path(word).name for word in ld_preload.replace(":", " ").split()]
    for name in _LIBRARIES:
        if any(file.startswith(f"lib{name}") for file in files):
            return name
    return None


def loaded_allocator(environ: Mapping[str, str], read: ReadText = read_text) -> str:
    """The allocator that this process really has, by its memory map (proc(5)) and the variables it was started with."""
    maps = read("/proc/self/maps")
    for name in _LIBRARIES:
        if f"/lib{name}" in maps:
            return name
    return "tuned" if "glibc.malloc.mmap_max=0" in environ.get("GLIBC_TUNABLES", "") else "glibc"
