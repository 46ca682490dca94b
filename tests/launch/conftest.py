"""What the launcher's tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segdist.run.folder import RunFolder, StepFolder

from .remote_launcher import RemoteLauncher


@pytest.fixture
def step(tmp_path: Path) -> StepFolder:
    """The folder of a training; not there yet."""
    return RunFolder(tmp_path / "run").step("train")


@pytest.fixture
def rank_program(tmp_path: Path) -> list[str]:
    """A program that writes its arguments as the result of the step in RUN, which is its last argument."""
    program = tmp_path / "rank.py"
    program.write_text(
        "import sys; from pathlib import Path; from segdist.run.folder import *; from segdist.run.result import *\n"
        "step = RunFolder(sys.argv[-1]).step(sys.argv[1], 'int8')\n"
        "metrics = {'argv': sys.argv[1:]}\n"
        "step.write_result(Result(step.task, step.name, 'completed', utc_now(), metrics=metrics))\n"
    )
    return [sys.executable, str(program)]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., RemoteLauncher]]:
    """Starts launches in ``tmp_path/job``, or in the folder named; they are ended after the test."""
    started: list[RemoteLauncher] = []

    def start(script: str, folder: str = "job", **options: object) -> RemoteLauncher:
        started.append(RemoteLauncher(tmp_path / folder, script, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder of programs that is first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder
