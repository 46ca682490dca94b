"""How a process gets onto another node of the allocation: the command lines of pbs_tmrsh, pbsdsh, mpirun and ssh.

All pure. Each starter runs one program on every node of a list; it brings no environment and no honest exit code
with it, so the program is :mod:`segdist.launch.node_agent`.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from segdist.config import ConfigError, require

StarterName = Literal["local", "pbs_tmrsh", "pbsdsh", "mpirun", "ssh"]
ORDER: tuple[StarterName, ...] = ("pbs_tmrsh", "pbsdsh", "mpirun", "ssh")
"""Best first: what the scheduler itself starts dies with the job."""

Which = Callable[[str], str | None]


@dataclass(frozen=True)
class Start:
    """One command that starts agents on these nodes (indices); ``stdin`` stays open as long as the launcher lives."""

    nodes: tuple[int, ...]
    argv: tuple[str, ...]
    stdin: bool = False


def choose_starter(
    asked: str,
    environ: Mapping[str, str],
    which: Which = shutil.which,
    order: Sequence[str] = ORDER,
) -> tuple[str, str]:
    """The starter, and why: the one asked for, or the first of ``order`` that is on PATH and can work here.

    Raises:
        ConfigError: where the one asked for is not there, or none is.
    """
    known = ("local", *ORDER)
    for name in (*order, *(() if asked == "auto" else (asked,))):
        require(name in known, f"--starter {name}: is not known; give one of auto, {', '.join(known)}")
    if asked != "auto":
        problem = _problem(asked, environ, which)
        require(problem is None, f"--starter {asked}: {problem}; give another one, or auto")
        return asked, "asked for"
    problems = {name: _problem(name, environ, which) for name in order}
    for name, problem in problems.items():
        if problem is None:
            return name, f"the first of {', '.join(order)} that works here"
    reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    raise ConfigError(f"--starter auto: nothing can start ranks on other nodes ({reasons}); load the site's MPI module")


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
        [mpirun, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def start_commands(
    starter: str,
    hosts: Sequence[str],
    nodes: Sequence[int],
    agent: Sequence[str],
    hostfile: str,
    which: Which = shutil.which,
    version_of: Callable[[str], str] = mpirun_version,
) -> list[Start]:
    """The commands that start ``agent NODE`` on each of ``nodes`` (indices into ``hosts``).

    pbs_tmrsh and pbsdsh execute their arguments without a shell, so nothing is quoted; ssh hands one string to the
    remote shell. pbsdsh is given the host's name: its ``-n`` is a line of the node file, and a wrong one runs on the
    first node without a word. mpirun starts one agent on each node of ``hostfile``, which has those hosts in order.
    """
    if starter == "mpirun":
        mpirun = which("mpirun") or "mpirun"
        count = str(len(nodes))
        if mpi_kind(version_of(mpirun)) == "openmpi":
            # An Open MPI refuses root without the last one; for others it means nothing.
            options = ["--hostfile", hostfile, "--map-by", "ppr:1:node", "-n", count, "--bind-to", "none"]
            options += ["--allow-run-as-root"]
        else:
            options = ["-f", hostfile, "-ppn", "1", "-n", count]
        return [Start(tuple(nodes), (mpirun, *options, *agent, "auto"))]
    starts = []
    for node in nodes:
        command = (*agent, str(node))
        if starter == "local":
            starts.append(Start((node,), command))
        elif starter == "pbs_tmrsh":
            starts.append(Start((node,), ("pbs_tmrsh", hosts[node], *command)))
        elif starter == "pbsdsh":
            starts.append(Start((node,), ("pbsdsh", "-h", hosts[node], *command)))
        else:
            remote = shlex.join((*command, "--stdin"))
            ssh = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15")
            starts.append(Start((node,), (*ssh, hosts[node], remote), stdin=True))
    return starts
