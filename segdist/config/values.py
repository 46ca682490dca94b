"""Values that a config is made of, and the error for one that cannot be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

SCENES = "@scenes"
"""The value of ``DatasetConfig.data`` that means the generated street scenes, unless a folder has that
name."""

INT8_SUFFIX = ".torchscript"
"""How the file of an int8 model ends."""

PATH, LINES = "path", "lines"
"""Marks of a config's fields, which :func:`segdist.config.settle.settle` heeds."""
PathText = Annotated[str, PATH]
"""A path: ``~`` is the home folder."""
ShellText = Annotated[str, LINES]
"""Text of a shell, which may have several lines."""

ModelName = Literal["unet", "hrnetv2_w18", "hrnetv2_w32", "hrnetv2_w48"]

STRIDE = 32
"""Both nets halve the image five times at the most: sides are padded up to a multiple of this."""


class ConfigError(Exception):
    """A value that cannot be. The message names the value, the rule and the fix."""


def require(condition: bool, message: str) -> None:
    """Raise :class:`ConfigError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)


def parse_size(text: str, option: str = "size") -> tuple[int, int]:
    """Turn ``"256x512"`` into ``(256, 512)``: height, then width, in pixels, both from 1 to 99999.

    Raises:
        ConfigError: where the text has another form.
    """
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None:
        raise ConfigError(f"--{option} {text!r}: a size is HEIGHTxWIDTH in pixels; write for example 256x512")
    return int(match[1]), int(match[2])


def at_least(option: str, value: float, least: float) -> None:
    """Raise :class:`ConfigError` for a value of ``--option`` below ``least``."""
    require(value >= least, f"--{option} {value}: must be at least {least}; give {least} or more")


def check_run(run: str) -> None:
    """Refuse a run folder whose name would be taken for an option where it stands on a command line."""
    require(not run.removeprefix("./").startswith("-"), f"--run {run}: begins with a dash; give another name")
    require(run == "" or bool(run.strip()), f"--run {run!r}: is blank; give a name")
