"""Fixtures of the fault tests: a source of ranks, trainings to be hit, and what undisturbed ones leave."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import OPTIONS, Training


@pytest.fixture
def training(zygote, streets, tmp_path):
    """Make a training in a run folder of its own."""

    def make(name: str = "run", world: int = 2, *options: str) -> Training:
        return Training(zygote, tmp_path / name, streets, world, (*OPTIONS, *options))

    return make


@pytest.fixture(scope="session")
def undisturbed(zygote, streets, tmp_path_factory):
    """What trainings leave that nothing has hit, by number of ranks and further options."""
    done: dict[Any, dict[str, Any]] = {}

    def left(world: int = 2, *options: str) -> dict[str, Any]:
        key = (world, options)
        if key not in done:
            path = tmp_path_factory.mktemp("undisturbed") / "run"
            training = Training(zygote, path, streets, world, (*OPTIONS, *options))
            training.finish()
            done[key] = training.left()
        return done[key]

    return left
