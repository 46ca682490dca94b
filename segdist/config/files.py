"""A config as a TOML file, and as JSON values."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from segdist.config.values import ConfigError


def to_plain(config: Any) -> dict[str, Any]:
    """The config as nested dicts of JSON values: what is written to the run folder."""
    plain: dict[str, Any] = dataclasses.asdict(config)
    return plain


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: where the file is missing, unreadable or not TOML; the message has its name.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML ({error}); mend the file at that place") from error
