"""Which rank is this process? A pure function of the environment, for every launcher the suite meets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class RankError(ValueError):
    """An environment that names a rank but not the rest, or one that cannot be."""


@dataclass(frozen=True)
class Ranks:
    """Where one process stands among all processes of the job.

    ``rank`` of ``world`` counts over all nodes, ``local_rank`` of ``local_world`` on this node; ``source`` is the
    launcher that said so. ``master`` is the rendezvous address, or None where the environment does not say.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    node: int = 0
    source: str = "single process"
    master: str | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world and 0 <= self.local_rank < self.local_world <= self.world):
            raise RankError(
                f"{self.source}: rank {self.rank} of {self.world}, local rank {self.local_rank} of "
                f"{self.local_world}: ranks must be 0 <= rank < world; start again with a fresh environment"
            )


@dataclass(frozen=True)
class _Launcher:
    """The variables in which one launcher says rank, world, local rank, local world and node."""

    name: str
    rank: str
    world: str
    local_rank: str | None = None
    local_world: str | None = None
    node: str | None = None


LAUNCHERS = (
    _Launcher("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
    _Launcher(
        "submitit",
        "SUBMITIT_LOCAL_GLOBALID",
        "SUBMITIT_LOCAL_NTASKS",
        "SUBMITIT_LOCAL_LOCALID",
        "SUBMITIT_LOCAL_NTASKS",
        "SUBMITIT_LOCAL_NODEID",
    ),
    _Launcher(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "OMPI_COMM_WORLD_NODE_RANK",
    ),
    _Launcher("MPI (PMI)", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    _Launcher("Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", None, "SLURM_NODEID"),
    _Launcher("PBS", "PBS_TASKNUM", "PBS_NP", None, "PBS_NUM_PPN", "PBS_NODENUM"),
)
"""In order of precedence: what started the process directly comes before the scheduler around it."""


def detect_ranks(environ: Mapping[str, str]) -> Ranks:
    """Read rank, world and local rank from the environment of torchrun, submitit, MPI, Slurm or PBS.

    ``SLURM_STEP_TASKS_PER_NODE`` (``2(x3),1``) gives Slurm's ranks per node. In a PBS job script, which is one
    process, there is no rank: PBS_TASKNUM counts from 1 and is set for each task that pbsdsh or a TM call starts.

    Raises:
        RankError: for a rank without its world, a value that is no number, or a rank outside the world.
    """
    for launcher in LAUNCHERS:
        if launcher.rank not in environ or (launcher.name == "PBS" and "PBS_NP" not in environ):
            continue
        if launcher.name == "Slurm" and "SLURM_STEP_ID" not in environ:
            continue  # the batch script itself: SLURM_PROCID is 0 there, but srun started nothing
        return _read(launcher, environ)
    return Ranks()


def _read(launcher: _Launcher, environ: Mapping[str, str]) -> Ranks:
    def number(variable: str | None, default: int | None = None) -> int:
        text = environ.get(variable) if variable else None
        if text is None:
            if default is None:
                raise RankError(
                    f"{launcher.name}: {launcher.rank}={environ[launcher.rank]} is set, but {variable} is not; "
                    f"set both, or unset {launcher.rank}"
                )
            return default
        try:
            return int(text)
        except ValueError as error:
            raise RankError(f"{variable}={text!r}: must be a whole number; start again with it unset") from error

    rank, world = number(launcher.rank), number(launcher.world)
    node = number(launcher.node, 0)
    if launcher.name == "PBS":
        rank -= 1
    if launcher.name == "Slurm":
        local_world = _slurm_tasks_on(environ.get("SLURM_STEP_TASKS_PER_NODE", str(world)), node)
    else:
        local_world = number(launcher.local_world, world)
    local_rank = number(launcher.local_rank, rank % local_world if local_world > 0 else 0)
    return Ranks(rank, world, local_rank, local_world, node, launcher.name, environ.get("MASTER_ADDR"))


def _slurm_tasks_on(text: str, node: int) -> int:
    """Tasks on the node of that index from Slurm's run-length list: ``"2(x3),1"`` is 2, 2, 2, 1."""
    counts: list[int] = []
    try:
        for part in text.split(","):
            count, _, repeat = part.partition("(x")
            counts += [int(count)] * (int(repeat.rstrip(")")) if repeat else 1)
        return counts[node]
    except (ValueError, IndexError) as error:
        raise RankError(
            f"SLURM_STEP_TASKS_PER_NODE={text!r}: must list the tasks of node {node} as in 2(x3),1; "
            "start the ranks with srun"
        ) from error


PEER = "SEGDIST_PEER"
"""Another node of the job, for a rank that looks for the network interface between them."""


def rank_environment(ranks: Ranks, master_port: int) -> dict[str, str]:
    """The variables with which a launcher tells a process its rank, in torchrun's names (oneCCL needs them too)."""
    return {
        "RANK": str(ranks.rank),
        "WORLD_SIZE": str(ranks.world),
        "LOCAL_RANK": str(ranks.local_rank),
        "LOCAL_WORLD_SIZE": str(ranks.local_world),
        "GROUP_RANK": str(ranks.node),
        "MASTER_ADDR": ranks.master or "127.0.0.1",
        "MASTER_PORT": str(master_port),
    }
