"""How much memory this process takes at its peak, by the kernel's count."""

from __future__ import annotations

from pathlib import Path

from segdist.system.procfs import ReadText, read_text


def reset_peak_memory(clear: Path = Path("/proc/self/clear_refs")) -> bool:
    """Let the peak start afresh from what is resident now (proc(5), clear_refs, 5); False where the kernel refuses."""
    try:
        clear.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_memory_mb(read: ReadText = read_text) -> float:
    """The most that was resident since the start, or since :func:`reset_peak_memory`, in 1e6 bytes (VmHWM of proc(5)).

    Raises:
        OSError: where the kernel does not count it.
    """
    for line in read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise OSError("/proc/self/status: has no VmHWM; a Linux kernel with /proc is needed")
