"""Which allocator a process is started with, by what is asked for and installed; and that it really has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.system.allocator import choose_allocator, find_allocator, loaded_allocator, preloaded_allocator

LIBRARY = Path("/opt/lib/libtcmalloc_minimal.so.4")


def only_tcmalloc(name):
    return LIBRARY if name == "tcmalloc" else None


def nothing(name):
    return None


def test_auto_takes_tcmalloc_where_it_is_installed_and_else_tunes_glibc():
    found = choose_allocator("auto", {}, only_tcmalloc)
    assert (found.name, found.environment) == ("tcmalloc", {"LD_PRELOAD": str(LIBRARY)})
    found = choose_allocator("auto", {}, nothing)
    assert (found.name, found.reason) == ("tuned", "tcmalloc is not installed")
    assert "glibc.malloc.mmap_max=0:" in found.environment["GLIBC_TUNABLES"]


def test_what_was_measured_is_taken_and_what_is_missing_here_is_said():
    assert choose_allocator("auto", {}, only_tcmalloc, known="glibc").name == "glibc"
    found = choose_allocator("auto", {}, only_tcmalloc, known="jemalloc")
    assert (found.name, found.reason) == ("tuned", "jemalloc was measured to be faster, but is not installed here")


def test_one_that_is_preloaded_stays():
    environ = {"LD_PRELOAD": "/x/libiomp5.so:/x/libjemalloc.so.2"}
    found = choose_allocator("auto", environ, only_tcmalloc)
    assert (found.name, found.environment, found.reason) == ("jemalloc", {}, "LD_PRELOAD has it")
    assert preloaded_allocator("/x/libiomp5.so") is None


def test_other_preloaded_libraries_and_tunables_stay():
    found = choose_allocator("tcmalloc", {"LD_PRELOAD": "/x/libiomp5.so"}, only_tcmalloc)
    assert found.environment["LD_PRELOAD"] == f"{LIBRARY} /x/libiomp5.so"
    found = choose_allocator("tuned", {"GLIBC_TUNABLES": "glibc.malloc.top_pad=1:glibc.cpu.x=2"}, nothing)
    first, second, *ours = found.environment["GLIBC_TUNABLES"].split(":")
    assert (first, second) == ("glibc.malloc.top_pad=1", "glibc.cpu.x=2")
    assert not any(one.startswith("glibc.malloc.top_pad=") for one in ours)


@pytest.mark.parametrize("name", ["tcmalloc", "jemalloc"])
def test_one_that_is_not_installed_is_refused_with_the_line_that_installs_it(name):
    with pytest.raises(LookupError, match=rf"--allocator {name}: its library is not installed; apt-get install lib"):
        choose_allocator(name, {}, nothing)


def test_a_library_is_looked_for_under_every_name(tmp_path):
    assert find_allocator("tcmalloc", [str(tmp_path)]) is None
    (tmp_path / "libtcmalloc.so.4").write_bytes(b"")
    assert find_allocator("tcmalloc", ["/nonexistent", str(tmp_path)]) == tmp_path / "libtcmalloc.so.4"


@pytest.mark.parametrize("name", ["glibc", "tuned", "tcmalloc", "jemalloc"])
def test_a_process_started_with_the_variables_has_the_allocator(name):
    if name not in ("glibc", "tuned") and find_allocator(name) is None:
        pytest.skip(f"{name} is not installed")
    plain = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "GLIBC_TUNABLES")}
    variables = choose_allocator(name, plain).environment
    code = "import os; from segdist.system.allocator import loaded_allocator as f; print(f(os.environ))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**plain, **variables}
    )
    assert (done.stdout.strip(), done.stderr) == (name, "")


def test_what_is_loaded_is_read_from_the_memory_map():
    maps = "7f00 r-xp 00000000 fe:00 1 /usr/lib/x86_64-linux-gnu/libjemalloc.so.2\n"
    assert loaded_allocator({}, lambda path: maps) == "jemalloc"
    assert loaded_allocator({}, lambda path: "") == "glibc"


def test_tuned_keeps_a_block_that_glibc_gives_back():
    """The defect itself: faults of a large block that is taken and freed again and again."""
    code = (
        "import ctypes, resource, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype = ctypes.c_void_p; libc.malloc.argtypes = [ctypes.c_size_t]\n"
        "libc.free.argtypes = [ctypes.c_void_p]\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20):\n"
        "        block = libc.malloc(64 << 20); ctypes.memset(block, 1, 64 << 20); libc.free(block)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); print(faults())\n"
    )
    plain = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "GLIBC_TUNABLES")}
    counts = {}
    for name in ("glibc", "tuned"):
        environ = {**plain, **choose_allocator(name, plain).environment}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
        counts[name] = int(done.stdout)
    assert counts["tuned"] * 10 < counts["glibc"]
