"""Which data set ``--data`` means: a folder, or the street scenes that this suite paints."""

from __future__ import annotations

from pathlib import Path

from segdist.config import SCENES

FORMER_SCENES = "scenes"
"""The word for the painted scenes in version 0.1; understood until 0.3 where no folder has that name."""


def is_painted(data: str) -> bool:
    """Whether ``--data`` means the painted street scenes; a word that is also a folder is the folder."""
    return data in (SCENES, FORMER_SCENES) and not Path(data).is_dir()


def painted_root(run: str) -> Path:
    """Where the painted scenes of a run are: beside the run folder, so that runs side by side share them."""
    return Path(run).resolve().parent / "scenes"


def former_word_note(data: str) -> str | None:
    """What to say about the former word for the painted scenes, where it was given."""
    if data != FORMER_SCENES or not is_painted(data):
        return None
    return f'--data {data}: there is no folder of that name, so it means the painted street scenes; write "{SCENES}"'
