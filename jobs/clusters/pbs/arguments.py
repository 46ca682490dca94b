"""The options of a script submitted by hand: ``qsub -v ARGS="…"``, which the scripts pass on as one word, --args=…."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from segdist.config import ConfigError, require

_WORD = "--args="


def split_args(words: Sequence[str]) -> list[str]:
    """The words with ``--args=TEXT`` replaced by the words of the text; quotes keep blanks together.

    qsub changes some values of ``-v``: Torque cuts them at a comma, OpenPBS refuses that, strips a pair of quotes, and
    makes backslashes of those within another pair. What shows that this has happened is refused.

    Raises:
        ConfigError: for a text with a backslash, or one that ends within a quotation.
    """
    found: list[str] = []
    for word in words:
        if not word.startswith(_WORD):
            found.append(word)
            continue
        text = word.removeprefix(_WORD)
        fix = 'put such a value into a file, ARGS="--config run.toml", or give the options by qsub -F where it has that'
        require("\\" not in text, f"ARGS={text}: has a backslash, which qsub makes of quotes; {fix}")
        try:
            found += shlex.split(text)
        except ValueError as error:
            raise ConfigError(
                f"ARGS={text}: ends within a quotation, as where qsub cuts it at a comma; {fix}"
            ) from error
    return found
