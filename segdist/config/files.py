"""Text files that people hand in, and a config as a TOML file and as JSON values."""

from __future__ import annotations

import codecs
import dataclasses
import sys
from pathlib import Path
from typing import Any

from segdist.config.values import ConfigError

_OTHER_MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
                (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip


def to_plain(config: Any) -> dict[str, Any]:
    """The config as nested dicts of JSON values: what is written to the run folder."""
    plain: dict[str, Any] = dataclasses.asdict(config)
    return plain


def read_text(path: str | Path, kind: str = "text") -> str:
    """Read a text file that somebody wrote: UTF-8, with a byte order mark or without.

    Args:
        path: the file.
        kind: what it is to be, for messages.

    Raises:
        ConfigError: where it is missing, unreadable or in another encoding; the message names the file.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a {kind} file") from error
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"{str(path)!r}: cannot be read ({error}); give the path of a {kind} file") from error
    encoding = next((name for mark, name in _OTHER_MARKS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content:
        encoding = "UTF-16, or no text"
    if encoding is not None:
        raise ConfigError(f"{path}: is {encoding}; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}: is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}); save it as UTF-8"
        ) from error


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: where the file is missing, unreadable, not UTF-8 or not TOML; the message has its name.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text = read_text(path, "TOML")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path}: is not TOML (nested too deeply); mend the file") from error
    except ValueError as error:  # TOML's own errors, and a number of thousands of digits
        said = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not TOML ({said}); mend the file at that place") from error
