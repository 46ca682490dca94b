"""Start from weights somebody else trained: official HRNet files, and this suite's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from segdist.config import ConfigError
from segdist.models.model_file import FORMAT, load_tensors

_WRAPPERS = ("weights", "state_dict", "model_state", "model")
_PREFIXES = ("module.", "model.")
_HEADS = ("last_layer.", "head.")
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class LoadReport:
    """What became of a weights file: tensors loaded, and those left out by reason."""

    path: str
    num_loaded: int
    num_tensors: int
    unexpected_keys: tuple[str, ...]
    mismatched_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]

    def lines(self) -> list[str]:
        """The same for a log."""
        lines = [f"init {self.path}: {self.num_loaded} of the net's {self.num_tensors} tensors loaded"]
        for reason, names in (
            ("left out, the net has none of that name", self.unexpected_keys),
            ("left out, of another shape", self.mismatched_keys),
            ("keep their fresh values, not in the file", self.missing_keys),
        ):
            if names:
                shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
                lines.append(f"  {len(names)} {reason}: {shown}")
        return lines


def load_init_weights(net: nn.Module, kind: str, path: str) -> LoadReport:
    """Load weights to start from, as ``--init KIND FILE`` says.

    "weights" takes what fits. "imagenet" wants the whole net but its head from a classification file: a backbone of
    which half keeps its random values would train, badly, and nobody would know why.

    Raises:
        ConfigError: where the file cannot be read, or lacks what it should have.
    """
    loaded = load_pretrained(net, path)
    if kind == "imagenet":
        lacking = [name for name in loaded.missing_keys if not name.startswith(_HEADS) and not name.endswith(_COUNTER)]
        lacking += [name for name in loaded.mismatched_keys if not name.startswith(_HEADS)]
        if lacking:
            raise ConfigError(
                f"--init imagenet {path}: lacks {len(lacking)} tensors of the net's backbone (first: {lacking[0]}); "
                "give the classification file of the same architecture, or --init weights to take what fits"
            )
    return loaded


def load_pretrained(net: nn.Module, path: str) -> LoadReport:
    """Copy every tensor of the file that fits into the net.

    Understands the official ImageNet and Cityscapes files of HRNet (bare state dicts, or under ``state_dict``; names
    with ``model.`` or ``module.`` before them) and this suite's ``model.pt``.

    Raises:
        ConfigError: where the file cannot be read, or holds nothing that fits.
    """
    tensors = _state_dict(load_tensors(path), path)
    own = net.state_dict()
    renamed = {_bare(name, own): tensor for name, tensor in tensors.items()}
    fitting = {name: t for name, t in renamed.items() if name in own and t.shape == own[name].shape}
    mismatched_keys = tuple(
        f"{name} {tuple(t.shape)} for {tuple(own[name].shape)}"
        for name, t in renamed.items()
        if name in own and t.shape != own[name].shape
    )
    # BatchNorm's counter of batches fits every net; alone it is no sign of a file that belongs here.
    if not any(not name.endswith("num_batches_tracked") for name in fitting):
        raise ConfigError(
            f"--init {path}: none of its {len(tensors)} tensors fits this net "
            f"(first: {next(iter(tensors))}); give weights of the same architecture"
        )
    net.load_state_dict({**own, **fitting})
    return LoadReport(
        path,
        num_loaded=len(fitting),
        num_tensors=len(own),
        unexpected_keys=tuple(name for name in renamed if name not in own),
        mismatched_keys=mismatched_keys,
        missing_keys=tuple(name for name in own if name not in renamed),
    )


def _state_dict(values: Any, path: str) -> dict[str, Tensor]:
    if isinstance(values, dict) and values.get("format") == FORMAT:
        values = values["weights"]
    for wrapper in _WRAPPERS:
        if isinstance(values, dict) and isinstance(values.get(wrapper), dict):
            values = values[wrapper]
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)} if isinstance(values, dict) else {}
    if not tensors:
        raise ConfigError(f"--init {path}: holds no table of tensors; give a state dict (.pth, .pt)")
    return tensors


def _bare(name: str, own: dict[str, Tensor]) -> str:
    while name not in own and name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name
