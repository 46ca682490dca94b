"""The replay answers as the real server does: the same commands to both, exit code and form of the answers compared."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..pbs.conftest import Lab
from .server import Done, PbsServer, until

pytestmark = pytest.mark.slow


@pytest.fixture
def replay() -> Iterator[Lab]:
    """A replayed OpenPBS."""
    lab = Lab(Path(tempfile.mkdtemp(prefix="pbs")).resolve(), "pbspro")
    yield lab
    lab.end()


def _form(done: Done) -> tuple[int, str]:
    """Exit code, and the answer without what differs between two servers: numbers, names, blanks."""
    text = re.sub(r"\d+", "N", done.stdout + done.stderr).replace("usage: qsub", "usage: qsub\n")
    return done.returncode, text.strip().split("\n")[0].rstrip()


def test_the_same_commands_have_the_same_answers(server: PbsServer, replay: Lab) -> None:
    folder = server.folder("same")
    text = "#!/bin/sh\nexit 3\n"
    server.write(folder / "x.sh", text)
    (replay.work / "x.sh").write_text(text)

    def real(*words: str) -> Done:
        return server.run(*words, cwd=folder)

    def ours(*words: str) -> Done:
        return replay.run(*words, check=False)

    asks: list[Callable[..., Done]] = [real, ours]
    first, array = ([ask(*words).stdout.strip().partition(".")[0] for ask in asks] for words in (
        ("qsub", "x.sh"), ("qsub", "-J", "0-1", "x.sh"),
    ))  # fmt: skip
    for ask, number in zip(asks, first):
        until(lambda ask=ask, number=number: ask("qstat", number).returncode == 35, 60, f"job {number} ends")
    different: list[object] = []
    for words in (
        ["qsub", "-W", "depend=afterany:{array}[0]", "x.sh"], ["qsub", "nowhere.sh"], ["qsub", "x.sh", "word"],
        ["qsub", "-l", "nosuch=1", "x.sh"], ["qsub", "-J", "1-1", "x.sh"], ["qsub", "-l", "walltime=x", "x.sh"],
        ["qstat", "{first}"], ["qstat", "99999"], ["qdel", "99999"], ["qdel", "{first}"],
        ["qsub", "-W", "depend=afterany:{array}[]", "x.sh"], ["qsub", "-W", "depend=afterok:{first}", "x.sh"],
        ["qsub", "-N", "a b", "x.sh"], ["qsub", "-Q", "x.sh"],
    ):  # fmt: skip
        answers = [
            _form(ask(*(w.format(first=one, array=many.rstrip("[]")) for w in words)))
            for ask, one, many in zip(asks, first, array)
        ]
        different += [(words, *answers)] if answers[0] != answers[1] else []
    assert not different, "\n".join(map(str, different))
