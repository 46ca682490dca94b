"""What one job asks a cluster for: plain data, made once from step, resources and profile, for Slurm and PBS alike.

Each cluster turns the same request into text; the text that a dry run prints is the one that is submitted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.planning.resources import Profile, Resources, walltime_seconds
from jobs.record.run_json import PlannedRun, Step
from segdist.config import require

EXCLUSIVE = "exclusive"
"""The option that asks for whole nodes, in both schedulers' words."""


@dataclass(frozen=True)
class After:
    """A job that is waited for: FOLDER/ID as ``files`` (``%a`` stands for the element's index), and whether it must
    have succeeded (``ok``)."""

    files: str
    ok: bool = True


@dataclass(frozen=True)
class Request:
    """What a job asks for and runs. ``command`` is shell text; ``folder`` may hold submitit's %j, %A and %a."""

    command: str
    folder: str
    name: str = "submitit"
    nodes: int = 1
    cores: int | None = None
    """Cores of each node, shared by its ranks; None asks for none in particular."""
    ranks_per_node: int = 1
    mem_gb: float | None = None
    walltime_s: int | None = None
    """None leaves the walltime to the queue."""
    queue: str = ""
    account: str = ""
    properties: tuple[str, ...] = ()
    """Features of a node: Slurm's constraint, Torque's properties, PBS Pro's boolean resources."""
    select: str = ""
    place: str = ""
    options: tuple[str, ...] = ()
    umask: str = "022"
    cwd: str = ""
    exports: Mapping[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    teardown: tuple[str, ...] = ()
    stderr_to_stdout: bool = False
    output: str = "_0_log"
    """What follows the id in the names of the output files, before ``.out`` and ``.err``."""
    signal_delay_s: int | None = None
    """Seconds before the walltime at which the command gets ``signal``; None never sends it."""
    signal: str = "USR2"
    save_margin_s: int = 300
    """Seconds before the walltime at which segdist's launcher lets training save."""
    rerun: bool = True
    after: tuple[After, ...] = ()
    """The files of the jobs that it waits for."""
    after_ids: tuple[str, ...] = ()
    """The same jobs by their ids."""
    after_any: bool = False
    """Whether it runs in whatever way those have ended."""
    elements: int = 1
    """Jobs of this kind that are submitted at once, as an array where there are several."""
    throttle: int = 0
    """Elements that may be at work at once; 0 is all of them."""
    tells_refusal: bool = False
    """Whether the command, run again with SEGDIST_NOT_CONTINUED, writes into its result why no job continues it."""
    python: str = ""
    """Interpreter on the nodes; empty takes the one that submits."""
    made_by: tuple[str, ...] = ()
    """The command that submits it; stands on top of the script."""
    add_directives: tuple[str, ...] = ()
    remove_directives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (
            ("nodes", self.nodes), ("cores", self.cores), ("ranks_per_node", self.ranks_per_node),
            ("elements", self.elements),
        ):  # fmt: skip
            require(value is None or value >= 1, f"{name} = {value}: must be at least 1; give 1 or more")
        require(
            re.fullmatch("0?[0-7]{3}", self.umask) is not None,
            f'umask = "{self.umask}": must be three octal digits; give for example "022"',
        )
        for option in self.options:
            require("\n" not in option, f"options: {option!r}: must be one line; give several options")
            require(
                option.startswith("-") or re.fullmatch(r"[A-Za-z_][\w.:-]*", option.partition("=")[0]) is not None,
                f"options: {option!r}: must be one option; give each on its own: exclusive qos=high, or in a profile "
                'options = ["exclusive", "qos=high"]',
            )
        for text in (self.queue, self.account, self.select, self.place, *self.properties):
            require(not re.search(r"\s", text), f"{text!r}: must have no blanks; qsub would take them for two words")

    @property
    def is_array(self) -> bool:
        """Whether several are submitted at once."""
        return self.elements > 1


def step_request(
    planned: Sequence[PlannedRun], step: Step, resources: Resources, profile: Profile, ids: Mapping[str, str]
) -> Request:
    """The request for one step of a run, or of all runs of a sweep: its function runs once, on the first node.

    Args:
        planned: the runs; several are an array.
        step: of the first of them.
        resources: what the command line and the profile ask for.
        profile: of the site.
        ids: of the jobs before it, by step.
    """
    folder, name = _place(planned, step)
    after = tuple(ids[other] for other in step.after)
    element = "_%a" if len(planned) > 1 else ""
    return Request(
        command="",  # the executor knows it
        folder=str(folder),
        name=name,
        nodes=step.nodes,
        cores=resources.cores_per_node if step.task != "report" else None,
        ranks_per_node=step.ranks_per_node,
        walltime_s=walltime_seconds(resources.walltime) if resources.walltime else None,
        queue=resources.queue or "",
        account=resources.account or "",
        properties=tuple(filter(None, (resources.constraint or "").split(":"))),
        options=resources.options,
        umask=profile.umask,
        cwd=planned[0].cwd,
        setup=profile.setup,
        stderr_to_stdout=True,
        signal=profile.signal,
        save_margin_s=save_margin(resources, profile),
        after=tuple(After(f"{folder}/{one}{element}", ok=not step.always) for one in after),
        after_ids=after,
        after_any=step.always,
        elements=len(planned),
        throttle=resources.max_parallel if len(planned) > 1 else 0,
        tells_refusal=True,
        python=profile.python,
        made_by=planned[0].made_by,
        add_directives=profile.add_directives,
        remove_directives=profile.remove_directives,
    )


def save_margin(resources: Resources, profile: Profile) -> int:
    """Seconds before the walltime at which training saves: the profile's, but half of the walltime at the most."""
    half = walltime_seconds(resources.walltime) // 2 if resources.walltime else profile.signal_before_s
    return min(profile.signal_before_s, half)


def _place(planned: Sequence[PlannedRun], step: Step) -> tuple[Path, str]:
    """Where submitit keeps the files of a step's job, of all runs of a sweep together, and the job's name."""
    first = planned[0]
    base = first.run.path if len(planned) == 1 else first.run.path.parent
    return (base / first.submitit_folder).resolve(), f"{base.resolve().name}-{step.step.replace('/', '-')}"
