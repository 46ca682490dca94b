"""What several test files share: a small data set of generated streets, and a way to run commands as a person would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segdist.data.scenes import ScenesConfig, ensure_scenes

from .faults.harness import Zygote

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Cityscapes root with 8 + 5 generated scenes of 64x128 pixels; read only."""
    out = tmp_path_factory.mktemp("data") / "streets"
    return ensure_scenes(ScenesConfig(out=out, train=8, val=5, size="64x128", seed=1, workers=1))


@pytest.fixture(scope="session")
def run_python() -> Run:
    """Run ``python -m MODULE ARGUMENTS`` to its end; output as text, rank variables of this process left out."""

    def run(*arguments: str, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**environ, **environment},
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts ranks quickly; see tests/faults/zygote.py."""
    zygote = Zygote()
    yield zygote
    zygote.process.kill()
    zygote.process.communicate()


Preload = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Preload:
    """The environment of a process whose file system lacks or fails as tests/faults/file_system.c is told."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc, to compile tests/faults/file_system.c")
    library = tmp_path_factory.mktemp("preload") / "file_system.so"
    source = Path(__file__).parent / "faults" / "file_system.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)

    def environment(faults: str, under: Path | None = None) -> dict[str, str]:
        limited = {} if under is None else {"UNDER": str(under)}
        return {"LD_PRELOAD": str(library), "FAULTS": faults, **limited}

    return environment


_FOLDER_MARKERS = {"cluster": "cluster", "faults": "faults"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder; ``slow`` and ``browser`` stand in the files themselves."""
    tests = Path(__file__).parent
    for item in items:
        room = item.path.relative_to(tests).parts[0]
        if room in _FOLDER_MARKERS:
            item.add_marker(_FOLDER_MARKERS[room])
