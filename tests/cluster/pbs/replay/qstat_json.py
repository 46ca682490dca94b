"""JSON as OpenPBS 23.06.06 prints it, which is not always JSON: a value a line, as seen on a real server."""

from __future__ import annotations

import re
from typing import Any

_BARE = re.compile(r"[+-]?(nan|inf|infinity|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)", re.IGNORECASE)
_ESCAPES = {'"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def print_json(values: dict[str, Any], depth: int = 0) -> str:
    """A table; keys are not escaped."""
    margin = "    " * (depth + 1)
    lines = [f'{margin}"{key}":{_print(value, depth + 1)}' for key, value in values.items()]
    return "{\n" + ",\n".join(lines) + "\n" + "    " * depth + "}"


def _print(value: Any, depth: int) -> str:
    """What strtod takes whole is bare, but for leading zeros and hexadecimals; a backslash is copied as it is."""
    if isinstance(value, dict):
        return print_json(value, depth)
    text = str(value)
    if _BARE.fullmatch(text) and not re.match(r"[+-]?0\d", text):
        return text
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in text) + '"'
