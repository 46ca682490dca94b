"""Writes the embedded data set: procedural street scenes in the folder layout of Cityscapes.

python -m segdist.data.scenes --out DIR --train 64 --val 16 --size 256x512 --seed 0
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segdist.config import ConfigError, settle
from segdist.data.scenes.labels import RARE_GROUPS
from segdist.data.scenes.painter import paint_scene
from segdist.system.output import prepare_output

GENERATOR = 1
"""Version of the painter: raise it when the same seed paints other pixels than before."""

RECORD = "scenes.json"
"""File in a data set's folder that says which one it is."""

CITIES: dict[str, tuple[str, ...]] = {
    "train": ("altwerder", "brennfurt", "kalkhaven"),
    "val": ("ostmarein", "wiesbruck"),
    "test": ("nordlach",),
}
"""Invented cities of each split; the order of the splits is part of every scene's seed."""

_COMPRESSION = 3


class ScenesError(ConfigError):
    """Options or a folder that cannot be used; the message names the value, the rule and the fix."""


@dataclass(frozen=True)
class ScenesConfig:
    """Write procedural street scenes, labelled like Cityscapes, into a folder laid out like Cityscapes."""

    out: Path
    """Folder to create; a set that is already there with the same options is kept."""
    train: int = 64
    """Number of training scenes, 1 or more."""
    val: int = 16
    """Number of validation scenes."""
    test: int = 0
    """Number of test scenes."""
    size: str = "256x512"
    """HEIGHTxWIDTH of a picture in pixels; both multiples of 32, 64 or more."""
    seed: int = 0
    """Seed, 0 or more; the same seed writes the same bytes."""
    workers: int = 0
    """Processes to paint with; 0 takes all processors this process may use."""

    def counts(self) -> dict[str, int]:
        """Number of scenes of each split."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def shape(self) -> tuple[int, int]:
        """Height and width in pixels. Raises ScenesError for a size that cannot be painted."""
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.size, re.ASCII)
        if match is None:
            raise ScenesError(f"size {self.size!r} is not HEIGHTxWIDTH; give two whole numbers, e.g. --size 256x512")
        height, width = int(match[1]), int(match[2])
        if min(height, width) < 64 or height % 32 or width % 32:
            raise ScenesError(
                f"size {self.size!r} has a side that is below 64 or no multiple of 32; "
                f"use e.g. --size {max(64, height // 32 * 32)}x{max(64, width // 32 * 32)}"
            )
        return height, width

    def record(self) -> dict[str, int | str]:
        """What decides the bytes of the data set, as it is kept in its folder."""
        return {
            "generator": GENERATOR,
            **self.counts(),
            "size": "{}x{}".format(*self.shape()),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class _Job:
    """One scene to paint: which, and where its two files go."""

    seed: int
    split: int
    index: int
    height: int
    width: int
    image: Path
    label: Path


def _groups_of(index: int) -> tuple[str, ...]:
    """Rare groups that scene `index` of a split must show: all in every other one, else three in turn."""
    if index % 2 == 0:
        return RARE_GROUPS
    first = index // 2 * 3 % len(RARE_GROUPS)
    return RARE_GROUPS[first : first + 3]


def _paint(job: _Job) -> None:
    """Paint the scene of `job` and write its picture and its label map as PNG."""
    rng = np.random.default_rng([job.seed, job.split, job.index])
    scene = paint_scene(rng, job.height, job.width, _groups_of(job.index))
    Image.fromarray(scene.image).save(job.image, compress_level=_COMPRESSION)
    Image.fromarray(scene.label).save(job.label, compress_level=_COMPRESSION)


def _check(config: ScenesConfig) -> None:
    """Raise ScenesError for the first option that is out of range."""
    config.shape()
    if config.train < 1:
        raise ScenesError(f"train {config.train} is below 1; a data set needs training scenes, e.g. --train 64")
    for name in ("val", "test", "seed", "workers"):
        value = getattr(config, name)
        if value < 0:
            raise ScenesError(f"{name} {value} is negative; give 0 or more, e.g. --{name} 0")


def _holds(config: ScenesConfig) -> bool:
    """Whether the target folder holds exactly the set `config` asks for; False where there is nothing yet.

    Raises ScenesError where something else is in the way.
    """
    out = config.out
    if not out.exists():
        return False
    if not out.is_dir():
        raise ScenesError(f"out {str(out)!r} is a file; --out must name a new folder")
    if not any(out.iterdir()):
        return False
    record = out / RECORD
    if not record.is_file():
        raise ScenesError(f"out {str(out)!r} holds other files (no {RECORD}); choose a new --out folder or empty it")
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ScenesError(f"{str(record)!r} is not JSON ({error}); choose a new folder with --out") from error
    if found != config.record():
        raise ScenesError(
            f"out {str(out)!r} holds another set of scenes ({json.dumps(found)}, asked for "
            f"{json.dumps(config.record())}); choose another folder with --out or remove this one"
        )
    for split, count in config.counts().items():
        present = sum(1 for _ in (out / "gtFine" / split).glob("*/*_labelIds.png"))
        if present != count:
            raise ScenesError(
                f"out {str(out)!r} holds {present} of {count} label maps in {split}; "
                "remove the folder and write it again"
            )
    return True


def _jobs(config: ScenesConfig, root: Path) -> list[_Job]:
    """The scenes of all splits; makes the folders that their files go to, under `root`."""
    height, width = config.shape()
    jobs = []
    for number, (split, count) in enumerate(config.counts().items()):
        cities = CITIES[split]
        for index in range(count):
            city = cities[index % len(cities)]
            stem = f"{city}_{index // len(cities):06d}_{19:06d}"
            folders = [root / kind / split / city for kind in ("leftImg8bit", "gtFine")]
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            image, label = folders[0] / f"{stem}_leftImg8bit.png", folders[1] / f"{stem}_gtFine_labelIds.png"
            jobs.append(_Job(config.seed, number, index, height, width, image, label))
    return jobs


def _paint_all(jobs: Sequence[_Job], workers: int) -> None:
    """Paint all jobs with `workers` processes and tell how far it has come."""
    step = max(1, -(-len(jobs) // 5))

    def tell(done: int) -> None:
        if done % step == 0 or done == len(jobs):
            print(f"scenes: {done} of {len(jobs)} painted", flush=True)

    if workers == 1:
        for done, job in enumerate(jobs, 1):
            _paint(job)
            tell(done)
        return
    # Fresh interpreters: forking a process that already runs torch's threads could hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_paint, jobs, chunksize=4), 1):
            tell(done)


def ensure_scenes(config: ScenesConfig) -> Path:
    """The folder `config.out` with exactly this set in it: at once if it is there, else painted first.

    Several processes may call this at the same time: each paints into a folder of its own, the first to
    finish moves its folder into place, and the others drop theirs. Raises ScenesError for options out of
    range or a folder that holds something else, which is left untouched.
    """
    _check(config)
    if _holds(config):
        return config.out
    return _write(config)


def write_scenes(config: ScenesConfig) -> Path:
    """Like `ensure_scenes`, and says on standard output whether the set was written or already there."""
    _check(config)
    if _holds(config):
        print(f"scenes: {config.out} already holds this set; nothing to do", flush=True)
        return config.out
    _write(config)
    print(f"scenes: wrote {sum(config.counts().values())} scenes to {config.out}", flush=True)
    return config.out


def _write(config: ScenesConfig) -> Path:
    """Paint the set into a temporary sibling of the target, then move it into place."""
    out = config.out
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial-{secrets.token_hex(8)}")
    partial.mkdir()
    try:
        jobs = _jobs(config, partial)
        cores = config.workers or len(os.sched_getaffinity(0))
        _paint_all(jobs, min(cores, -(-len(jobs) // 4)))
        (partial / RECORD).write_text(json.dumps(config.record(), indent=2) + "\n", encoding="utf-8")
        try:
            if out.is_dir() and not any(out.iterdir()):
                out.rmdir()  # not every file system puts a folder in an empty one's place
            partial.rename(out)
        except OSError:
            # Another process was faster. Its set must be the one asked for; anything else is refused.
            if not _holds(config):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the set is there, 2 for options or a folder that cannot be used."""
    import tyro

    prepare_output()
    config = tyro.cli(ScenesConfig, args=argv, prog="python -m segdist.data.scenes")
    try:
        write_scenes(settle(config))
    except ConfigError as error:
        print(f"scenes: {error}", file=sys.stderr)
        return 2
    return 0
