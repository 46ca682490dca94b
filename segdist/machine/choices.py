"""Which choices a training takes: those of its first start, else what was asked for, measured, or is likely best.

The order for each choice: an option that the user gave; what the run's first start took (``train/choices.json``: a
resumed training is bit-identical only so); the node's profile (:mod:`segdist.machine.profile`); a default that
measurements of this net on such a CPU support.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdist.config import ConfigError, NetConfig, RuntimeConfig, TrainingConfig
from segdist.machine.profile import Choices, Profile, Work, profile_key, profile_path, profiles_folder, read_profile
from segdist.system.cpu import Cpu

TUNE = "python -m segdist.launch tune measures what is fastest on this node"


@dataclass(frozen=True)
class Basis:
    """Where choices come from: ``choices``, and one sentence on ``source``; ``profile`` where there is one."""

    choices: Choices
    source: str
    profile: Profile | None = None


def default_choices(net: NetConfig, cpu: Cpu, has_ipex: bool) -> Choices:
    """What is likely fastest where nothing was measured.

    From steps of 2 × 256×512 on two cores: contiguous tensors win but for HRNet in fp32 on AVX-512; in bf16 IPEX wins
    over plain autocast (UNet-32 0.86 against 1.16 s, HRNetV2-W18 0.90 against 1.48), and only with contiguous tensors.
    """
    if cpu.has_bf16:
        memory_format = "contiguous" if has_ipex else "channels_last"
        return Choices(memory_format, "bf16", has_ipex)  # type: ignore[arg-type]
    wide = "avx512f" in cpu.flags
    return Choices("channels_last" if wide and net.model != "unet" else "contiguous")


def find_basis(runtime: RuntimeConfig, net: NetConfig, cpu: Cpu, cores: int, work: Work, has_ipex: bool) -> Basis:
    """The choices before anything the user asked for, and where they come from.

    Args:
        cores: of this node that its ranks share.

    Raises:
        ConfigError: for ``--tuned FILE`` that is no profile.
    """
    default = default_choices(net, cpu, has_ipex)
    if runtime.tuned not in ("auto", "off"):
        path = Path(runtime.tuned)
        profile = read_profile(path)
        return Basis(profile.choices, f"{path}", profile)
    if runtime.tuned == "off":
        return Basis(default, "default for this net and CPU; --tuned off")
    path = profile_path(profiles_folder(runtime.profiles), profile_key(cpu, cores, work))
    if path.is_file():
        profile = read_profile(path)
        return Basis(profile.choices, f"measured on this kind of node ({path.name})", profile)
    return Basis(default, f"default for this net and CPU; {TUNE}")


def read_first_choices(path: Path) -> Choices | None:
    """What the run's first start took; None where it says nothing that is understood."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in dataclasses.fields(Choices)}
        return Choices(**{name: value for name, value in values["choices"].items() if name in known})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is not whole ({error}); remove it to choose anew") from error


def as_asked(choices: Choices, runtime: RuntimeConfig, training: TrainingConfig | None = None) -> Choices:
    """The choices with what the user gave in their place."""
    asked: dict[str, Any] = {}
    if runtime.memory_format != "auto":
        asked["memory_format"] = runtime.memory_format
    if runtime.precision != "auto":
        asked["precision"] = runtime.precision
    if runtime.ipex != "auto":
        asked["ipex"] = runtime.ipex == "on"
    if runtime.wait_policy != "auto":
        asked["wait"] = runtime.wait_policy
    if runtime.allocator != "auto":
        asked["allocator"] = runtime.allocator
    if training is not None and training.bucket_mb:
        asked["bucket_mb"] = training.bucket_mb
    if training is not None and training.compile != "auto":
        asked["compile"] = training.compile == "on"
    return dataclasses.replace(choices, **asked)


def differences(first: Choices, now: Choices) -> Mapping[str, tuple[Any, Any]]:
    """Field → (then, now) where two differ."""
    a, b = dataclasses.asdict(first), dataclasses.asdict(now)
    return {name: (a[name], b[name]) for name in a if a[name] != b[name] and name != "ranks"}


def find_inference(runtime: RuntimeConfig, cpu: Cpu, cores: int, work: Work) -> tuple[str, bool, str]:
    """How a net's forward pass is fastest here: memory format, whether traced, and where that comes from.

    Whatever crop and batch the net of ``work`` was tuned for: its newest profile on such a node counts.

    Raises:
        ConfigError: for ``--tuned FILE`` that is no profile.
    """
    if runtime.memory_format != "auto":
        return runtime.memory_format, False, "asked for"
    if runtime.tuned not in ("auto", "off"):
        named = read_profile(Path(runtime.tuned))
        return named.inference, named.inference_traced, runtime.tuned
    folder = profiles_folder(runtime.profiles)
    wanted = {name: value for name, value in profile_key(cpu, cores, work).items() if name not in ("crop", "images")}
    found = []
    for path in sorted(folder.glob("*.json")) if runtime.tuned == "auto" and folder.is_dir() else ():
        try:
            profile = read_profile(path)
        except ConfigError:  # another release's, or another program's: none was asked for by name
            continue
        if all(profile.key.get(name) == value for name, value in wanted.items()):
            found.append((profile.measured_at, profile, path.name))
    if not found:
        return "channels_last", False, "the default"
    _, newest, name = max(found, key=lambda item: item[0])
    return newest.inference, newest.inference_traced, f"measured on this kind of node ({name})"
