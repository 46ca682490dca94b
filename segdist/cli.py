"""From argv and a TOML file to a frozen config, with errors a person can act on.

The command line is derived from the dataclass by tyro, the file is held against the same dataclass: no option is
written down twice.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from segdist.config import ConfigError, conform, expand_home, read_text, read_toml, require, settle
from segdist.run.exit_codes import USAGE_ERROR
from segdist.run.files import explain
from segdist.system.output import OUTPUT_NAME, STDOUT, prepare_output

T = TypeVar("T")


class _ConfigFinder(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError("--config: needs a file; give the path of a TOML file")


def from_plain(cls: type[T], values: Mapping[str, Any], source: str) -> T:
    """Build the config ``cls`` from nested dicts (TOML or JSON).

    Args:
        cls: a frozen dataclass, its fields plain values or further dataclasses.
        values: what the file holds; keys left out take their defaults.
        source: the file's name, for messages.

    Raises:
        ConfigError: for an unknown key (the message lists the known ones), a value of another type, or one that
            the config itself refuses.
    """
    config = conform(cls, values, source)
    try:
        return settle(config)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def parse(cls: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Parse ``argv`` into ``cls``; ``--config FILE.toml`` sets defaults that the other options override.

    Prints help and exits with 0 for ``--help``; exits with 2 for a wrong option.

    Raises:
        ConfigError: for a value or a file that is refused.
    """
    import tyro

    finder = _ConfigFinder(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", action="append", default=[])
    found, rest = finder.parse_known_args(list(argv))
    require(len(found.config) < 2, f"--config {' --config '.join(found.config)}: give one file; options override it")
    if found.config:
        path = expand_home(found.config[0], "--config")
        default = from_plain(cls, read_values(path), path)
    description = (
        cls.__doc__ or ""
    ).strip() + "\n\nUse --config FILE.toml for a file of defaults; options override it."
    config: T = tyro.cli(  # type: ignore[assignment]
        cls,
        prog=prog,
        description=description,
        default=default,
        args=rest,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return settle(config)


def read_values(path: str) -> dict[str, Any]:
    """Read a config file: TOML as people write it, or JSON (``.json``) as the run folder records it.

    Raises:
        ConfigError: where it cannot be read or does not hold a table.
    """
    if not path.endswith(".json"):
        return read_toml(path)
    try:
        values = json.loads(read_text(path, "config"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}); give the path of a config file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no table; give the path of a config file")
    return values


def path_argument(text: str) -> Path:
    """A path on the command line, for argparse: ``--out=~/x`` is below the home folder.

    Raises:
        argparse.ArgumentTypeError: where that is not known.
    """
    try:
        return Path(expand_home(text, "path"))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run_command(body: Callable[[], int | None], output_is_result: bool = False, encoding: str | None = None) -> int:
    """Run a command's body; what is refused, or what the storage refuses, is one line on stderr.

    Args:
        body: the work; returns the exit code, or None for 0.
        output_is_result: whether the command is for what it prints: then a stdout that cannot be written is an error.
        encoding: of output that is no terminal.

    Returns:
        the exit code: 2 for a :class:`ConfigError`, 1 for an OSError.
    """
    prepare_output(lasting=not output_is_result, encoding=encoding)
    try:
        code = body() or 0
        sys.stdout.flush()
        return code
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # as in `… | head`: who read the output has seen enough
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:  # of the storage, mostly: it names its file
        if error.filename == OUTPUT_NAME:
            _drop_output()
        print(f"error: {explain(error)}; mend the storage, or what keeps this user from it", file=sys.stderr)
        return 1


def _drop_output() -> None:
    """Let the interpreter's end find nothing that it could not write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
