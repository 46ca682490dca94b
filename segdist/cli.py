"""From argv and a TOML file to a frozen config, with errors a person can act on.

The command line is derived from the dataclass by tyro, the file is held against the same dataclass by dacite:
no option is written down twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from segdist.config import ConfigError, read_toml
from segdist.run.exit_codes import USAGE_ERROR
from segdist.run.files import explain
from segdist.system.output import OUTPUT_NAME, STDOUT, prepare_output

T = TypeVar("T")


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
    import dacite

    _refuse_unknown_keys(cls, values, source, "")
    try:
        return dacite.from_dict(cls, values, dacite.Config(cast=[tuple], check_types=True))
    except dacite.WrongTypeError as error:
        raise ConfigError(f"{source}: {error}; give a value of that type") from error
    except dacite.DaciteError as error:
        raise ConfigError(f"{source}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _refuse_unknown_keys(cls: type[Any], values: Mapping[str, Any], source: str, prefix: str) -> None:
    types = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key, value in values.items():
        if key not in known:
            where = f"in [{prefix.rstrip('.')}]" if prefix else "at the top level"
            raise ConfigError(f"{source}: unknown key {key!r} {where}; known here: {', '.join(known)}")
        if dataclasses.is_dataclass(types[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {prefix}{key} is a table; write it as [{prefix}{key}]")
            _refuse_unknown_keys(typing.cast(type, types[key]), value, source, f"{prefix}{key}.")


def parse(cls: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Parse ``argv`` into ``cls``; ``--config FILE.toml`` sets defaults that the other options override.

    Prints help and exits with 0 for ``--help``; exits with 2 for a wrong option.

    Raises:
        ConfigError: for a value or a file that is refused.
    """
    import tyro

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    try:
        found, rest = finder.parse_known_args(list(argv))
    except SystemExit as error:
        raise ConfigError("--config: needs a file; give the path of a TOML file") from error
    if found.config is not None:
        default = from_plain(cls, read_values(found.config), found.config)
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
    return config


def read_values(path: str) -> dict[str, Any]:
    """Read a config file: TOML as people write it, or JSON (``.json``) as the run folder records it.

    Raises:
        ConfigError: where it cannot be read or does not hold a table.
    """
    if not path.endswith(".json"):
        return read_toml(path)
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}); give the path of a config file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no table; give the path of a config file")
    return values


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
