"""OpenPBS' answers as tables, one a job: its JSON, also where that is none, and the plain text of ``qstat -f``.

OpenPBS copies a backslash into its JSON as it is, prints bare whatever ``strtod`` takes whole (``nan``, ``.5``, ``+5``,
``1.``) and escapes no key, so that one job's name or variable makes the whole answer unreadable. It prints a value a
line, though: where the answer is no JSON it is read by its lines, and what is amiss in one stays in that one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_LONE_BACKSLASH = re.compile(r'\\(?:(["\\/bfnrt]|u[0-9a-fA-F]{4})|)')


def read_json(text: str) -> Mapping[str, Any] | None:
    """The jobs of ``qstat -f -F json`` by their ids; None where it names none."""
    try:
        document = json.loads(text)
    except ValueError:
        document = _read_lines(text)
    jobs = document.get("Jobs") if isinstance(document, dict) else None
    if not isinstance(jobs, dict):
        return None
    return {name: values for name, values in jobs.items() if isinstance(values, dict)}


def _read_lines(text: str) -> dict[str, Any]:
    root: dict[str, Any] = {}
    open_tables = [root]
    for line in text.split("\n"):
        stripped = line.strip()
        begun = re.fullmatch(r'"(.*)":\{', stripped)
        value = re.fullmatch(r'"(.*?)":(.+?),?', stripped)
        if begun:
            table: dict[str, Any] = {}
            open_tables[-1][begun[1]] = table
            open_tables.append(table)
        elif stripped in ("}", "},") and len(open_tables) > 1:
            open_tables.pop()
        elif value:
            open_tables[-1][value[1]] = _value(value[2])
    return root


def _value(text: str) -> Any:
    """A value as it stands in its line; one that is not JSON is its own text."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        mended = _LONE_BACKSLASH.sub(lambda match: match[0] if match[1] else r"\\", text[1:-1])
        text = f'"{mended}"'
    try:
        return json.loads(text)
    except ValueError:
        return text.strip('"')


def read_text(text: str) -> dict[str, dict[str, Any]]:
    """The jobs of ``qstat -f`` by their ids; long values go on in lines that begin with a tab."""
    jobs: dict[str, dict[str, Any]] = {}
    for block in re.split(r"^Job Id: ", text.replace("\n\t", ""), flags=re.MULTILINE)[1:]:
        name, *lines = block.split("\n")
        values: dict[str, Any] = {}
        for line in lines:
            match = re.fullmatch(r"    ([\w.]+) = (.*)", line)
            if match is None:
                continue
            table, _, key = match[1].rpartition(".")
            whole = re.fullmatch(r"-?\d+", match[2]) is not None
            (values.setdefault(table, {}) if table else values)[key] = int(match[2]) if whole else match[2]
        jobs[name.strip()] = values
    return jobs
