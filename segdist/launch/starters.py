"""How a process gets onto another node of the allocation: the command lines of pbs_tmrsh, pbsdsh, mpirun and ssh.

All pure. Each starter runs one program on every node of a list; it brings no environment and no honest exit code
with it, so the program is :mod:`segdist.launch.agent_main`.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from segdist.config import ConfigError, require

ORDER = ("pbs_tmrsh", "pbsdsh", "mpirun", "ssh")
"""Best first: what the scheduler itself starts dies with the job."""

Which = Callable[[str], str | None]


@dataclass(frozen=True)
class StartCommand:
    """One command that starts agents on these nodes (indices); ``stdin`` stays open as long as the launcher lives."""

    nodes: tuple[int, ...]
    argv: tuple[str, ...]
    stdin: bool = False


def choose_starters(asked: str, environ: Mapping[str, str], which: Which = shutil.which) -> tuple[tuple[str, ...], str]:
    """The starters to try, best first, and why: the one asked for, or those of several that are on PATH and can work.

    Args:
        asked: a name, several with commas between them, or "auto" for those of :data:`ORDER`.

    Raises:
        ConfigError: where the one asked for is not there, or none of several is.
    """
    known = ("local", *ORDER)
    names = ORDER if asked == "auto" else tuple(asked.split(","))
    for name in names:
        require(name in known, f"--starter {name}: is not known; give one of auto, {', '.join(known)}")
    problems = {name: _problem(name, environ, which) for name in names}
    if len(names) == 1:
        require(problems[asked] is None, f"--starter {asked}: {problems[asked]}; give another one, or auto")
        return (asked,), "asked for"
    usable = tuple(name for name, problem in problems.items() if problem is None)
    if usable:
        return usable, f"the first of {', '.join(names)} that works here"
    reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    raise ConfigError(
        f"--starter {asked}: nothing can start ranks on other nodes ({reasons}); load the site's MPI module"
    )


def _problem(name: str, environ: Mapping[str, str], which: Which) -> str | None:
    if name == "local":
        return None
    if which(name) is None:
        return "is not on PATH"
    if name in ("pbs_tmrsh", "pbsdsh") and "PBS_JOBID" not in environ:
        return "works inside a PBS job only (PBS_JOBID is not set)"
    return None


def mpi_kind(version: str) -> str:
    """``"hydra"`` (Intel MPI, MPICH) or ``"openmpi"``, from the text of ``mpirun --version``.

    Raises:
        ConfigError: for another MPI.
    """
    if "Open MPI" in version or "Open RTE" in version or "OpenRTE" in version:
        return "openmpi"
    if "Intel(R) MPI" in version or "HYDRA" in version.upper() or "MPICH" in version.upper():
        return "hydra"
    first = (version.strip().splitlines() or ["nothing"])[0]
    raise ConfigError(f"mpirun --version says {first!r}: neither Open MPI, MPICH nor Intel MPI; give --starter ssh")


def mpirun_version(mpirun: str) -> str:
    """What ``mpirun --version`` says."""
    done = subprocess.run(
        [mpirun, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def start_commands(
    starter: str,
    hosts: Sequence[str],
    nodes: Sequence[int],
    agent: Sequence[str],
    hostfile: str,
    lines: Mapping[str, int] | None = None,
) -> list[StartCommand]:
    """The commands that start ``agent NODE`` on each of ``nodes`` (indices into ``hosts``).

    pbs_tmrsh and pbsdsh execute their arguments without a shell, so nothing is quoted; ssh hands one string to the
    remote shell. Torque's pbsdsh is given the host's name; OpenPBS' has no ``-h``, takes the host's line in the node
    file (``lines``; a wrong one runs on the first node without a word), and ``--`` before a program's own options. For
    mpirun, ``hostfile`` names those hosts in order.
    """
    if starter == "mpirun":
        return [mpirun_command(nodes, agent, hostfile)]
    commands = []
    for node in nodes:
        command = (*agent, str(node))
        if starter == "local":
            commands.append(StartCommand((node,), command))
        elif starter == "pbs_tmrsh":
            commands.append(StartCommand((node,), ("pbs_tmrsh", hosts[node], *command)))
        elif starter == "pbsdsh":
            where = ("-h", hosts[node]) if lines is None else ("-n", str(lines[hosts[node]]), "--")
            commands.append(StartCommand((node,), ("pbsdsh", *where, *command)))
        else:
            remote = shlex.join((*command, "--stdin"))
            ssh = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15")
            commands.append(StartCommand((node,), (*ssh, hosts[node], remote), stdin=True))
    return commands


def mpirun_command(
    nodes: Sequence[int],
    agent: Sequence[str],
    hostfile: str,
    which: Which = shutil.which,
    version_of: Callable[[str], str] = mpirun_version,
) -> StartCommand:
    """The command that starts ``agent auto`` once on each host of ``hostfile``; the agent finds out which node it is.

    Raises:
        ConfigError: for an MPI that is not known.
    """
    mpirun = which("mpirun") or "mpirun"
    count = str(len(nodes))
    if mpi_kind(version_of(mpirun)) == "openmpi":
        # An Open MPI refuses root without the last one; for others it means nothing.
        options = ["--hostfile", hostfile, "--map-by", "ppr:1:node", "-n", count, "--bind-to", "none"]
        options += ["--allow-run-as-root"]
    else:
        options = ["-f", hostfile, "-ppn", "1", "-n", count]
    return StartCommand(tuple(nodes), (mpirun, *options, *agent, "auto"))
