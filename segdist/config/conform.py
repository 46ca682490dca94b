"""What a file says, held against a config dataclass: an unknown key and a value of another type are refused by name.

One value where a list may stand is a list of that one; a text is never taken apart into letters.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from segdist.config.values import ConfigError

T = TypeVar("T")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
_EXAMPLES: dict[Any, object] = {bool: True, int: 1, float: 0.5, str: "text"}
_LONGEST = 60


class _WrongTypeError(Exception):
    """A value of another type, or one within it; the caller knows its key."""


def conform(cls: type[T], values: Mapping[str, Any], source: str, table: str = "") -> T:
    """Build the config ``cls`` from nested dicts (TOML or JSON).

    Args:
        cls: a frozen dataclass, its fields plain values or further dataclasses.
        values: what the file holds; keys left out take their defaults.
        source: the file's name, for messages.
        table: the table of the file that holds the values; empty at the top level.

    Raises:
        ConfigError: for an unknown key (the message lists the known ones), a value of another type, or one that the
            config itself refuses.
    """
    kinds = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    where = f"in [{table}]" if table else "at the top level"
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise ConfigError(f"{source}: unknown key {key!r} {where}; known here: {', '.join(fields)}")
        kind, name = kinds[key], f"{table}.{key}" if table else key
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {name} is a table; write it as [{name}]")
            built[key] = conform(typing.cast(type, kind), value, source, name)
            continue
        try:
            built[key] = _value(value, kind)
        except _WrongTypeError as error:
            found = f"{'is' if error.args[0] is value else 'holds'} {_type_of(error.args[0])}"
            raise ConfigError(
                f"{source}: {key} = {_shown(value)} {where}: {found}, and must be {_wanted(kind)}; "
                f"write for example {key} = {_example(value, kind, fields[key])}"
            ) from None
    try:
        return cls(**built)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _value(value: Any, kind: Any) -> Any:
    """The value as the config has it; raises _WrongTypeError where it is none of that kind."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for one in inner:
            try:
                return _value(value, one)
            except _WrongTypeError:
                continue
        raise _WrongTypeError(value)
    if origin is tuple and inner[-1] is Ellipsis:
        several = isinstance(value, list | tuple)
        return tuple(_value(one, inner[0]) for one in (value if several else [value]))
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            raise _WrongTypeError(value)
        return tuple(_value(one, of) for one, of in zip(value, inner))
    if origin is Literal:
        if not isinstance(value, str) or value not in inner:
            raise _WrongTypeError(value)
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1000:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _WrongTypeError(value)
    return value


def _wanted(kind: Any) -> str:
    """What must stand there, in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_wanted(one) for one in inner if one is not NoneType)
    if origin is Literal:
        return f"one of {', '.join(map(json.dumps, inner))}"
    if origin is tuple and inner[-1] is Ellipsis:
        return f"a list, each of it {_wanted(inner[0])}"
    if origin is tuple:
        return f"a list of {len(inner)}: {', then '.join(_wanted(one) for one in inner)}"
    return _WORDS[kind]


def _type_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, float):
        return "a number with a fraction" if value % 1 else "a number with a point"
    return _WORDS.get(type(value), "a date or time")


def _shown(value: Any) -> str:
    """A value as in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _example(value: Any, kind: Any, field: dataclasses.Field[Any]) -> str:
    """What could stand there: the same value in the right type where there is one, else the default."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not NoneType)
    text = str(value).strip()
    if kind is str and not isinstance(value, list | tuple | Mapping):
        return json.dumps(text.lower() if isinstance(value, bool) else text, ensure_ascii=False)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower()
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(text)
            return json.dumps(int(number) if kind is int else number, allow_nan=False)
        except (ValueError, OverflowError):
            pass  # it is no number: the default is the example
    if get_origin(kind) is tuple and get_args(kind)[-1] is not Ellipsis:
        return json.dumps([get_args(one)[0] if get_origin(one) is Literal else "FILE" for one in get_args(kind)])
    default = field.default
    if default in (dataclasses.MISSING, None, "", ()):
        if get_origin(kind) is tuple:
            return json.dumps([_EXAMPLES[get_args(kind)[0]]])
        default = get_args(kind)[0] if get_origin(kind) is Literal else _EXAMPLES[kind]
    return json.dumps(default)
