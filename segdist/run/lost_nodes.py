"""``lost_nodes.jsonl`` of a step: which nodes its launches have lost; standard library only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from segdist.run.folder import StepFolder
from segdist.run.result import utc_now


@dataclass(frozen=True)
class LostNode:
    """A node that was lost: how it was noticed, when, and in which life of which job."""

    node: str
    why: str
    job: str
    restart: int
    at: str


def note_lost_nodes(step: StepFolder, nodes: Sequence[str], why: str, job: str, restart: int) -> None:
    """Note nodes that a launch of the step has lost."""
    with (step.path / "lost_nodes.jsonl").open("a", encoding="utf-8") as file:
        for node in nodes:
            file.write(json.dumps(asdict(LostNode(node, why, job, restart, utc_now()))) + "\n")


def read_lost_nodes(step: StepFolder, job: str) -> list[LostNode]:
    """The nodes that a job has lost in the step, the latest last; a line that is not whole is left out."""
    try:
        lines = (step.path / "lost_nodes.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        found = [LostNode(**json.loads(line)) for line in lines]
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return []
    return [one for one in found if one.job == job]
