"""The command line of ``jobs.submit``: the task, and every run that it asks for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.planning.names import unused_run
from jobs.planning.resources import Profile, read_profile, resolve
from jobs.planning.submissions import SUBMISSIONS, Submission
from jobs.planning.sweep import Element, combine, split_sweep
from segdist.cli import parse
from segdist.config import ConfigError, require
from segdist.run.folder import RunFolder


def read_command(argv: Sequence[str]) -> tuple[str, list[tuple[RunFolder, Submission]], Profile, bool]:
    """The task, every run with its submission (one, or a sweep's), the site's profile, and whether it is a sweep."""
    argv = ["--queue" + word[len("--partition") :] if word.split("=")[0] == "--partition" else word for word in argv]
    rest, elements = split_sweep(argv)
    if not elements:
        task, base = _parse(rest)
        elements = combine(base.resources.sweep)  # of a config file
    if not elements:
        profile = read_profile(base.resources.profile)
        base = dataclasses.replace(base, resources=resolve(base.resources, profile))
        return task, [(RunFolder(base.run or unused_run(task, base)), base)], profile, False
    task, combinations = _combinations(rest, elements)
    base = next(iter(combinations.values()))
    profile = read_profile(base.resources.profile)
    folder = Path(base.run or unused_run(f"sweep-{task}", base))
    runs: list[tuple[RunFolder, Submission]] = []
    for name, one in combinations.items():
        with named(name):
            runs.append((RunFolder(folder / name), dataclasses.replace(one, resources=resolve(one.resources, profile))))
    return task, runs, profile, True


def _combinations(rest: Sequence[str], elements: Sequence[Element]) -> tuple[str, dict[str, Submission]]:
    """The task of a sweep, and the submission of each combination, by its name."""
    task, found = "", {}
    for element in elements:
        with named(element.name):
            task, found[element.name] = _parse([*rest, *element.argv])
    require(
        task in ("train", "pipeline"),
        f"--sweep: is for train and pipeline; submit {task} once for each of its values",
    )
    return task, found


@contextlib.contextmanager
def named(combination: str) -> Iterator[None]:
    """Let what is refused within name the combination of the sweep."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{combination}: {error}" if combination else str(error)) from error


def _parse(argv: Sequence[str]) -> tuple[str, Submission]:
    task = argv[0]
    known = ", ".join(SUBMISSIONS)
    require(task in SUBMISSIONS, f"task {task!r}: is not known; give one of {known} as the first word")
    submission: Submission = parse(SUBMISSIONS[task], argv[1:], f"python -m jobs.submit {task}")
    return task, submission
