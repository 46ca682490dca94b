"""Which engines are installed here; each is looked for once."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import cache

from segdist.config import ConfigError
from segdist.engines.interface import EngineName


@dataclass(frozen=True)
class Probe:
    """An engine's version, empty where it is absent, and the line that installs it."""

    name: EngineName
    version: str
    install: str

    @property
    def installed(self) -> bool:
        """Whether it is there."""
        return bool(self.version)

    def require(self) -> str:
        """Its version.

        Raises:
            ConfigError: with the install line, where it is absent.
        """
        if not self.installed:
            raise ConfigError(f"--engine {self.name}: is not installed here; run {self.install}, or take another one")
        return self.version


INSTALL: dict[EngineName, str] = {
    "openvino": 'pip install "openvino>=2025.4"',
    "onnxruntime": 'pip install "onnxruntime>=1.20,<2"',
    "torch": 'pip install "torch>=2.8.0,<2.9"',
}


@cache
def probe(name: EngineName) -> Probe:
    """What is installed of an engine; nothing is imported for it."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return Probe(name, version, INSTALL[name])
