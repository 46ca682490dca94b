"""The top of a job script: the command that made it, and its directive lines, which a site may add to and remove."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Literal

from segdist import __version__
from segdist.config import ConfigError, require

Prefix = Literal["#SBATCH", "#PBS"]


def finish_script(
    text: str, prefix: Prefix, made_by: Sequence[str], add: Sequence[str] = (), remove: Sequence[str] = ()
) -> str:
    """A script with the site's own directive lines, and with the command that made it under its first line.

    Args:
        text: begins with ``#!``.
        prefix: what a directive line begins with.
        made_by: the command; nothing is said where it is empty.
        add: directives without their prefix, as ``--comment=road`` or ``-l software=matlab``; they come last.
        remove: beginnings of directives, as ``--open-mode`` or ``-l place``; every line that begins so goes.

    Raises:
        ConfigError: for a directive of several lines, and a removal that matches none; the message lists what is there.
    """
    lines = text.split("\n")
    for word in remove:
        kept = [line for line in lines if not _begins_with(line, prefix, word)]
        if len(kept) == len(lines):
            there = ", ".join(line.removeprefix(prefix).strip() for line in lines if line.startswith(f"{prefix} "))
            raise ConfigError(
                f'remove_directives: "{word}": no directive begins so; there are {there}; give one of them'
            )
        lines = kept
    for word in add:
        require(bool(word.strip()) and "\n" not in word, f"add_directives: {word!r}: must be one line of text")
    last = max((at for at, line in enumerate(lines) if line.startswith(f"{prefix} ")), default=0)
    lines[last + 1 : last + 1] = [f"{prefix} {word.removeprefix(prefix).strip()}" for word in add]
    if made_by:
        lines[1:1] = [f"# Made by segdist {__version__}:", f"#   {_one_line(shlex.join(made_by))}"]
    return "\n".join(lines)


def _begins_with(line: str, prefix: Prefix, word: str) -> bool:
    """Whether a line is that directive: the word itself, or followed by its value."""
    if not line.startswith(f"{prefix} "):
        return False
    directive, wanted = line.removeprefix(prefix).strip(), word.removeprefix(prefix).strip()
    rest = directive.removeprefix(wanted)
    return bool(wanted) and directive.startswith(wanted) and (not rest or (not rest[0].isalnum() and rest[0] != "-"))


def _one_line(text: str) -> str:
    """A comment must not end in the middle of a quoted word."""
    return text.replace("\n", "\\n").replace("\r", "\\r")
