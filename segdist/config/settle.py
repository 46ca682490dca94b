"""What every config goes through, wherever its values come from: paths get their home folder, and values that no file
and no scheduler can hold are refused."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import typing
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from segdist.config.values import LINES, PATH, require

T = TypeVar("T")
_LARGEST = 2**32 - 1
"""Of a whole number: larger ones do not fit where some of them go (seeds, C integers)."""


def settle(config: T) -> T:
    """The same config with ``~`` in its paths replaced by the home folder.

    Raises:
        ConfigError: for a number that is not finite or far too large, a text with a line end or another control
            character, and a path below a home folder that is not known.
    """
    cls: Any = type(config)
    kinds, changed = _kinds(cls), {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        option = f"--{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            settled: object = settle(value)
        else:
            settled = _settled(value, kinds[field.name], option)
        if settled != value:
            changed[field.name] = settled
    return dataclasses.replace(config, **changed) if changed else config  # type: ignore[type-var]


def expand_home(text: str, option: str) -> str:
    """``~/x`` and ``~name/x`` as the shell expands them; it does not behind ``--opt=``, and no file's text.

    Raises:
        ConfigError: where the own home folder is not known.
    """
    if not text.startswith("~"):
        return text
    found = os.path.expanduser(text)  # noqa: PTH111 (pathlib refuses ~name of a name that is none)
    require(found != text or text.split("/")[0] != "~", f"{option} {text}: HOME is not set; give the path without ~")
    return found


@functools.cache
def _kinds(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _settled(value: Any, kind: Any, option: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if isinstance(value, tuple):
        inner = get_args(get_args(kind)[0] if get_origin(kind) is Annotated else kind)
        kinds = (inner[0],) * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_settled(one, of, option) for one, of in zip(value, kinds))
    marks = kind.__metadata__ if get_origin(kind) is Annotated else ()
    if isinstance(value, str):
        _require_printable(value, option, LINES in marks)
        return expand_home(value, option) if PATH in marks else value
    if isinstance(value, Path):
        return Path(expand_home(str(value), option))
    if isinstance(value, float):
        require(math.isfinite(value), f"{option} {value}: must be a finite number; give for example 0.5")
    elif isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) <= _LARGEST, f"{option} {value}: is out of range; give at most {_LARGEST}")
    return value


def _require_printable(text: str, option: str, lines: bool) -> None:
    shown = ascii(text)[:80]
    bad = any((ord(letter) < 32 or ord(letter) == 127) and not (lines and letter in "\n\t") for letter in text)
    require(not bad, f"{option} {shown}: has a line end or another control character; give one line of text")
    require(
        not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text),
        f"{option} {shown}: is not text in UTF-8; rename it, or set a locale in which it is",
    )
