"""The two kinds of PBS: what each understands is known from its version, and never found out by trying."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Literal

from segdist.config import ConfigError

Dialect = Literal["pbspro", "torque"]
"""``pbspro``: OpenPBS and PBS Professional (select/place, JSON). ``torque``: Torque (nodes:ppn, XML)."""

Ask = Callable[[list[str]], str]


def ask_version(command: list[str]) -> str:
    """What ``qsub --version`` says, on either stream."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{' '.join(command)}: gave no answer ({error}); submit on a login node") from error
    return done.stdout + done.stderr


def dialect_of(version: str) -> Dialect:
    """The dialect of a version text: ``pbs_version = 23.06.06``, or ``Version: 6.1.3``.

    Raises:
        ConfigError: for another text. Guessing is no way out: Torque ignores ``-l select`` in silence.
    """
    if re.search(r"pbs_version\s*=", version, re.IGNORECASE):
        return "pbspro"
    if re.search(r"^\s*Version:\s*\d", version, re.MULTILINE):
        return "torque"
    first = (version.strip().splitlines() or ["nothing"])[0]
    raise ConfigError(
        f"qsub --version says {first!r}: neither PBS Pro nor Torque; name the dialect in the profile "
        '(dialect = "pbspro" or "torque")'
    )


def find_dialect(named: str, ask: Ask = ask_version) -> Dialect:
    """The dialect that was named, or with "auto" that of the ``qsub`` on PATH.

    Raises:
        ConfigError: for another name, or a version that is not known.
    """
    if named == "pbspro":
        return "pbspro"
    if named == "torque":
        return "torque"
    if named != "auto":
        raise ConfigError(f'dialect = "{named}": is not known; write "pbspro", "torque" or "auto"')
    return dialect_of(ask(["qsub", "--version"]))
