"""A node's profile: which choices train a net fastest on this kind of node, as ``tune`` has measured them.

One small JSON file for each kind of node and work, ``~/.cache/segdist/machine/NET_CROP_bBATCH_DIGEST.json``: its name
and its ``key`` say what it is for (CPU, cores, net, crop, images a step, versions). Homes are shared on a cluster, and
so one node's profile serves all that are alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segdist.config import ConfigError, NetConfig, require
from segdist.run.files import write_json
from segdist.run.provenance import versions
from segdist.system.allocator import ALLOCATORS
from segdist.system.cpu import Cpu

SCHEMA = 1
_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_bf16", "amx_int8")
"""The CPU flags that decide which kernels run."""


@dataclass(frozen=True)
class Choices:
    """What decides how fast a net trains on a node; ``ranks`` share its cores, ``bucket_mb`` 0 is DDP's default."""

    memory_format: Literal["channels_last", "contiguous"] = "contiguous"
    precision: Literal["fp32", "bf16"] = "fp32"
    ipex: bool = False
    allocator: str = "tuned"
    wait: Literal["passive", "active"] = "passive"
    ranks: int = 1
    bucket_mb: int = 0
    compile: bool = False

    def describe(self) -> str:
        """In one line, what differs from plain PyTorch's own choices named."""
        words = [self.precision + (" by IPEX" if self.ipex else ""), self.memory_format, self.allocator]
        words.append(f"{self.wait} waiting")
        words += [f"{self.ranks} ranks"] * (self.ranks > 1) + [f"buckets of {self.bucket_mb} MB"] * (self.bucket_mb > 0)
        return ", ".join(words + ["torch.compile"] * self.compile)


@dataclass(frozen=True)
class Work:
    """What a node does in a step: the net, its crops (HEIGHTxWIDTH) and its images."""

    model: str
    width: int
    crop: str
    images: int

    @classmethod
    def of(cls, net: NetConfig, crop: str, images: int) -> Work:
        """The work of a node that gets ``images`` of each step. HRNet's width is in its name."""
        return cls(net.model, net.width if net.model == "unet" else 0, crop, images)

    @property
    def name(self) -> str:
        """As in the profile's file name: ``unet-32_256x512_b2``."""
        net = f"{self.model}-{self.width}" if self.width else self.model
        return f"{net}_{self.crop}_b{self.images}"


@dataclass(frozen=True)
class Profile:
    """What ``tune`` found. ``trials`` are the rows of its table; ``busy`` says that the machine was not its own.

    ``inference`` is the memory format in which the net's forward pass was fastest, ``inference_traced`` whether that
    was the traced net's.
    """

    key: Mapping[str, Any]
    choices: Choices
    step_s: float
    trials: tuple[Mapping[str, Any], ...] = ()
    inference: str = "channels_last"
    inference_traced: bool = False
    busy: bool = False
    measured_at: str = ""
    complete: bool = True
    machine: Mapping[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}


def profile_key(cpu: Cpu, cores: int, work: Work) -> dict[str, Any]:
    """What a profile holds for: the CPU and what it can, its cores, the work, and the versions of torch and IPEX."""
    found = versions()
    return {
        "cpu": cpu.model,
        "flags": [flag for flag in _FLAGS if flag in cpu.flags],
        "cores": cores,
        **dataclasses.asdict(work),
        "versions": {name: found[name] for name in ("torch", "ipex") if name in found},
    }


def profiles_folder(asked: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where profiles are: the folder asked for, else ``segdist/machine`` in the user's cache (XDG_CACHE_HOME)."""
    if asked:
        return Path(asked)
    cache = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "/nonexistent") / ".cache")
    return Path(cache) / "segdist" / "machine"


def profile_path(folder: Path, key: Mapping[str, Any]) -> Path:
    """The file of a profile; what cannot be in its name is in the digest."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:10]
    name = Work(key["model"], key["width"], key["crop"], key["images"]).name
    return folder / f"{name}_{key['cores']}c_{digest}.json"


def write_profile(path: Path, profile: Profile) -> None:
    """Write it whole, in one move."""
    write_json(path, profile.to_plain())


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        ConfigError: where it is missing, not whole, of another schema, or holds a choice that is none.
    """
    again = "give the file that `segdist.launch tune` has written, or --tuned off"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a profile ({error}); {again}") from error
    known = isinstance(values, dict) and values.get("schema") == SCHEMA
    require(known, f"{path}: is no profile of this release; {again}")
    try:
        choices = Choices(**values["choices"])
        fields = {f.name: values[f.name] for f in dataclasses.fields(Profile) if f.name in values}
        profile = Profile(**{**fields, "choices": choices, "trials": tuple(values.get("trials", ()))})
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{path}: is not whole ({error}); {again}") from error
    _check(path, choices, again)
    return profile


def _check(path: Path, choices: Choices, again: str) -> None:
    for name, known in (
        ("memory_format", ("channels_last", "contiguous")),
        ("precision", ("fp32", "bf16")),
        ("ipex", (True, False)),
        ("allocator", ALLOCATORS),
        ("wait", ("passive", "active")),
        ("compile", (True, False)),
    ):
        value = getattr(choices, name)
        words = ", ".join(str(one) for one in known)
        require(value in known, f"{path}: {name} {value!r}: must be one of {words}; {again}")
    for name in ("ranks", "bucket_mb"):
        value = getattr(choices, name)
        require(isinstance(value, int) and value >= 0, f"{path}: {name} {value!r}: must be a whole number; {again}")
