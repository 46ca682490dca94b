"""``jobs.submit`` whose jobs would start programs that are none: for what is refused or only printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.planning.steps import Commands
from jobs.submit import main

COMMANDS = Commands(("launch",), ("report",))


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a refused submission says, on one line; asserts exit code 2 and that nothing was written."""
    before = sorted(Path().rglob("*"))
    try:
        code: object = main(argv, COMMANDS)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert sorted(Path().rglob("*")) == before
    return " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().err).split())


# --- help ---------------------------------------------------------------------------------------------------
