"""What the CPU can do, read from /proc/cpuinfo."""

from __future__ import annotations

from dataclasses import dataclass

from segdist.system.procfs import ReadText, read_text

_LEVELS = (
    ("AMX", {"amx_tile", "amx_int8", "amx_bf16"}),
    ("AVX512_BF16", {"avx512f", "avx512_bf16"}),
    ("AVX512_VNNI", {"avx512f", "avx512_vnni"}),
    ("AVX512", {"avx512f", "avx512bw", "avx512vl", "avx512dq"}),
    ("AVX2_VNNI", {"avx2", "avx_vnni"}),
    ("AVX2", {"avx2", "fma"}),
)


@dataclass(frozen=True)
class Cpu:
    """One machine's CPU: its name, the flags the kernel lists, and its maker (``GenuineIntel``, ``AuthenticAMD``)."""

    model: str
    flags: frozenset[str]
    vendor: str = "GenuineIntel"

    @property
    def isa(self) -> str:
        """The highest instruction set that matters for a net: AMX, AVX512_BF16, …, AVX2, or "baseline"."""
        for name, needed in _LEVELS:
            if needed <= self.flags:
                return name
        return "baseline"

    @property
    def has_bf16(self) -> bool:
        """Whether it multiplies bf16 in hardware (AVX512-BF16 or AMX), so that bf16 is faster than fp32."""
        return "avx512_bf16" in self.flags or "amx_bf16" in self.flags

    @property
    def has_vnni(self) -> bool:
        """Whether it accumulates int8 products in 32 bits; without it they can saturate at 16."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & self.flags)


def read_cpu(read: ReadText = read_text) -> Cpu:
    """The CPU of this machine; of another one where ``read`` gives its files."""
    model, flags, vendor = "unknown", frozenset[str](), "unknown"
    for line in read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() == "vendor_id":
            vendor = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
            break
    return Cpu(model, flags, vendor)
