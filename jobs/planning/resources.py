"""What a job asks the cluster for: options of the command line over the site's profile."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from segdist.cli import from_plain
from segdist.config import PathText, ShellText, read_toml, require
from segdist.launch.starters import ORDER
from segdist.launch.step import MAX_RESTARTS

ClusterName = Literal["auto", "local", "slurm", "pbs"]


@dataclass(frozen=True)
class Profile:
    """A site: what its jobs have in common. A TOML file such as ``slurm/xeon.toml``; each key is optional."""

    queue: str = ""
    """Partition (Slurm) or queue (PBS)."""
    account: str = ""
    """Account to charge."""
    constraint: str = ""
    """Node feature (Slurm) or property (PBS), such as gold6128."""
    cores_per_node: int = 0
    """Cores of a node, shared by its ranks; 0 asks for none in particular."""
    ranks_per_node: int = 1
    """Processes on each node; one a socket is a good start."""
    walltime: str = ""
    """Time limit, HH:MM:SS or D-HH:MM:SS; empty takes the queue's own."""
    signal: str = "USR1"
    """Signal sent before the time limit: training saves, the job is requeued and goes on."""
    signal_before_s: int = 120
    """How long before the limit; it must be enough for a step, a checkpoint and the requeue."""
    max_restarts: int = MAX_RESTARTS
    """Times a job may be requeued."""
    options: tuple[str, ...] = ()
    """More options for sbatch or qsub: "exclusive", "qos=high"."""
    add_directives: tuple[str, ...] = ()
    """Directive lines that every script gets besides, without #SBATCH or #PBS: "--comment=road", "-l software=x"."""
    remove_directives: tuple[str, ...] = ()
    """Directive lines that a script loses, by their beginning: "--open-mode", "-l place". Without its output, name,
    signal or requeue line a job still runs, but jobs.logs, restarts or status may lack what they live on."""
    setup: tuple[ShellText, ...] = ()
    """Shell lines that run first on the first node: "module load ...", "source .../setvars.sh"."""
    python: str = ""
    """Interpreter on the nodes; empty takes the one that submits."""
    dialect: Literal["auto", "pbspro", "torque"] = "auto"
    """PBS only: pbspro (OpenPBS, PBS Professional) or torque; "auto" asks qsub for its version."""
    starter: str = "auto"
    """PBS only: what starts ranks on the nodes, the best first: pbs_tmrsh,pbsdsh,mpirun,ssh; "auto" is that order."""
    umask: str = "022"
    """PBS only: who may read the run folder; jobs start with 077 there."""

    def __post_init__(self) -> None:
        require(self.signal == "USR1", f'signal = "{self.signal}": the launcher heeds USR1; write signal = "USR1"')
        require(
            self.signal_before_s >= 0,
            f"signal_before_s = {self.signal_before_s}: must be at least 0; write for example 120",
        )
        for key, value, least in (
            ("cores_per_node", self.cores_per_node, 0),
            ("ranks_per_node", self.ranks_per_node, 1),
            ("max_restarts", self.max_restarts, 0),
        ):
            require(value >= least, f"{key} = {value}: must be at least {least}; write {least} or more")
        _check_starter(self.starter)
        if self.walltime:
            walltime_minutes(self.walltime)


@dataclass(frozen=True)
class Resources:
    """Where the job runs, and on how many processes. What is not given comes from the profile."""

    cluster: ClusterName = "auto"
    """Scheduler; "auto" looks for sbatch and qsub, and takes this machine where neither is there."""
    profile: PathText = ""
    """Site profile, a TOML file such as slurm/xeon.toml."""
    nodes: int = 1
    """Nodes; on the local cluster, groups of processes on this machine."""
    ranks_per_node: int | None = None
    """Processes on each node (profile, or 1)."""
    cores_per_node: int | None = None
    """Cores to ask for on each node; its ranks share them."""
    queue: str | None = None
    """Partition (Slurm; --partition is the same) or queue (PBS)."""
    account: str | None = None
    """Account to charge."""
    constraint: str | None = None
    """Node feature (Slurm) or property (PBS)."""
    walltime: str | None = None
    """Time limit of each step's job, HH:MM:SS or D-HH:MM:SS."""
    max_restarts: int | None = None
    """Times a job may be requeued at its time limit or after losing a node (profile, or 10)."""
    starter: str | None = None
    """PBS only: what starts ranks on the nodes (profile, or the first that works of pbs_tmrsh, pbsdsh, mpirun, ssh)."""
    options: tuple[str, ...] = ()
    """More options for sbatch or qsub, without dashes: exclusive qos=high."""
    sweep: tuple[str, ...] = ()
    """Values to try, KEY=VALUE,VALUE; may be given several times. Every combination is a run; on a cluster they
    are one job array."""
    max_parallel: int = 0
    """Runs of a sweep that may be at work at once; 0 is all of them (on the local cluster: one)."""
    wait: bool = False
    """Show the job's output until it ends, and exit with its exit code."""
    dry_run: bool = False
    """Print what would be run, and touch nothing."""

    def __post_init__(self) -> None:
        for option, value, least in (
            ("nodes", self.nodes, 1),
            ("ranks-per-node", self.ranks_per_node, 1),
            ("cores-per-node", self.cores_per_node, 1),
            ("max-restarts", self.max_restarts, 0),
            ("max-parallel", self.max_parallel, 0),
        ):
            require(
                value is None or value >= least,
                f"--{option} {value}: must be at least {least}; give {least} or more",
            )
        if self.starter is not None:
            _check_starter(self.starter)
        if self.walltime:
            walltime_minutes(self.walltime)

    @property
    def ranks(self) -> int:
        """Processes over all nodes."""
        return self.nodes * (self.ranks_per_node or 1)


def read_profile(path: str) -> Profile:
    """Read a site profile; the built-in one for an empty path.

    Raises:
        ConfigError: where the file cannot be read, or has an unknown key or a value that cannot be.
    """
    return from_plain(Profile, read_toml(path), path) if path else Profile()


def resolve(resources: Resources, profile: Profile) -> Resources:
    """The resources with what was not given taken from the profile: None is left in no field."""
    own: dict[str, Any] = {
        field.name: getattr(profile, field.name)
        for field in dataclasses.fields(Resources)
        if getattr(resources, field.name) is None
    }
    if own.get("cores_per_node") == 0:
        own["cores_per_node"] = None
    return dataclasses.replace(resources, options=(*profile.options, *resources.options), **own)


def walltime_minutes(text: str) -> int:
    """Minutes, rounded up, of a walltime; see :func:`walltime_seconds`."""
    return math.ceil(walltime_seconds(text) / 60)


def walltime_seconds(text: str) -> int:
    """Seconds of ``HH:MM:SS`` or ``D-HH:MM:SS``.

    Raises:
        ConfigError: for another form, or no time at all. One field is minutes to Slurm and seconds to PBS; two are
            minutes and seconds to both, and would be hours and minutes to many who write them.
    """
    match = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,5}):([0-5]\d):([0-5]\d)", text, re.ASCII)
    require(match is not None, f"--walltime {text}: {_walltime_advice(text)}")
    assert match is not None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    require(total > 0, f"--walltime {text}: is no time at all; give for example 06:00:00")
    return total


def _walltime_advice(text: str) -> str:
    """What is wrong with a walltime of another form, and what may have been meant."""
    if one := re.fullmatch(r"\d{1,5}", text, re.ASCII):
        minutes, seconds = _clock(60 * int(one[0])), _clock(int(one[0]))
        return f"may mean minutes (Slurm) or seconds (PBS); write {minutes} or {seconds}"
    if two := re.fullmatch(r"(\d{1,5}):([0-5]\d)", text, re.ASCII):
        first, second = int(two[1]), int(two[2])
        return f"may mean minutes or hours; write {_clock(60 * first + second)} or {_clock(3600 * first + 60 * second)}"
    if day := re.fullmatch(r"(\d{1,4})-(\d{1,2})(?::([0-5]\d))?", text, re.ASCII):
        return f"must be HH:MM:SS or D-HH:MM:SS; write {day[1]}-{day[2].zfill(2)}:{day[3] or '00'}:00"
    return "must be HH:MM:SS or D-HH:MM:SS; give for example 06:00:00"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _check_starter(text: str) -> None:
    """Refuse a starter that the launcher would refuse in the job."""
    known = ("local", *ORDER)
    require(
        text in ("auto", "srun") or all(name in known for name in text.split(",")),
        f"--starter {text}: is not known; give auto, or one or several of {','.join(known)} with commas between them",
    )
