"""How the machine is used: collectives, precision, memory format, threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segdist.config.values import PathText, at_least, require


@dataclass(frozen=True)
class RuntimeConfig:
    """How the machine is used."""

    collectives: Literal["auto", "ccl", "gloo"] = "auto"
    """Gradient exchange: oneCCL, gloo, or oneCCL where it is installed."""
    interface: str = ""
    """Network interface of the ranks; empty takes the one that routes to the first node."""
    timeout: int = 600
    """Seconds after which a collective operation that a rank does not join is an error."""
    rendezvous_timeout: int = 180
    """Seconds that the ranks wait for each other at the start; those that have not come are then named."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Training arithmetic; "auto" takes bf16 where the CPU has instructions for it."""
    ipex: Literal["auto", "on", "off"] = "auto"
    """Intel Extension for PyTorch in training: for bf16 where it is installed, always, or never."""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """Layout of activations and weights."""
    allocator: Literal["auto", "glibc", "tuned", "tcmalloc", "jemalloc"] = "auto"
    """Memory allocator of each rank: glibc's as it is, "tuned" to keep large blocks, or a library that does; "auto"
    takes tcmalloc where it is installed, else "tuned"."""
    wait_policy: Literal["auto", "active", "passive"] = "auto"
    """Whether threads that wait for each other spin or sleep (OMP_WAIT_POLICY); "auto" lets them sleep."""
    tuned: PathText = "auto"
    """What each "auto" of a training becomes: as "tune" has measured it on such a node ("auto"), never ("off"), or as a
    profile's .json file says."""
    profiles: PathText = ""
    """Folder of the profiles that "tune" writes; empty is segdist/machine in the user's cache."""
    threads: int = 0
    """Threads per rank; 0 takes this rank's share of the node's cores."""

    def __post_init__(self) -> None:
        at_least("timeout", self.timeout, 1)
        at_least("rendezvous-timeout", self.rendezvous_timeout, 1)
        at_least("threads", self.threads, 0)
        require(
            self.tuned in ("auto", "off") or self.tuned.endswith(".json"),
            f"--tuned {self.tuned}: must be auto, off or a profile's .json file; tune prints the name of the one it "
            "writes",
        )
