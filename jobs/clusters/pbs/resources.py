"""What a request is in PBS' own words: the values of ``-l``, the dependency, the command line of qsub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from jobs.clusters.pbs.dialect import Dialect
from jobs.clusters.request import EXCLUSIVE, Request
from segdist.config import require


def in_dialect(request: Request, dialect: Dialect) -> Request:
    """The request with the option "exclusive" as a placement, if the dialect knows all that it asks for.

    Raises:
        ConfigError: naming what it does not know. Torque would ignore ``-l select`` and give one node; OpenPBS would
            refuse the others.
    """
    if EXCLUSIVE in request.options:
        require(
            dialect == "pbspro",
            'options "exclusive": Torque has none; ask for all cores of a node with --cores-per-node',
        )
        options = tuple(option for option in request.options if option != EXCLUSIVE)
        request = replace(request, place="scatter:excl", options=options)
    _refuse_foreign(request, dialect)
    return request


def _refuse_foreign(request: Request, dialect: Dialect) -> None:
    if dialect == "torque":
        for name in ("select", "place"):
            value = getattr(request, name)
            require(not value, f'{name} = "{value}": Torque ignores -l {name}; give nodes, ncpus and properties')
        for option in request.options:
            require(
                not re.match(r"-?(-l\s*|J\b|-J\b)?(select|place)=|-?J\b", option.strip()),
                f'options: "{option}": Torque does not know it; give nodes, ncpus and properties',
            )
        return
    for option in request.options:
        require(
            not re.match(r"-[dFt]\b|-l\s*procs=", option.strip()),
            f'options: "{option}": PBS Pro does not know it; the script sets its own folder, arrays are -J',
        )


def resources(request: Request, dialect: Dialect) -> list[str]:
    """The values of ``-l``. Placement is forced: two chunks of ``select`` may else share a node."""
    lines: list[str] = []
    if dialect == "torque":
        lines.append(":".join([f"nodes={request.nodes}", *request.properties, f"ppn={_cores(request)}"]))
        if request.mem_gb is not None:
            lines.append(f"mem={_mb(request.mem_gb) * request.nodes}mb")
    else:
        chunk = f"{request.nodes}:ncpus={_cores(request)}:mpiprocs={request.ranks_per_node}"
        if request.mem_gb is not None:
            chunk += f":mem={_mb(request.mem_gb)}mb"
        chunk += "".join(f":{name}" if "=" in name else f":{name}=True" for name in request.properties)
        lines += [f"select={request.select or chunk}", f"place={request.place or 'scatter'}"]
    if request.walltime_s is not None:
        lines.append(f"walltime={clock(request.walltime_s)}")
    return lines


def _cores(request: Request) -> int:
    """Cores of a node: as asked for, and one a rank at the least."""
    return max(request.cores or 1, request.ranks_per_node)


def clock(seconds: int) -> str:
    """``HH:MM:SS``."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def clock_seconds(text: str) -> int:
    """Seconds of a time as PBS has it: ``[[HH:]MM:]SS``, with a fraction or without.

    Raises:
        ConfigError: for another form.
    """
    require(
        re.fullmatch(r"(\d{1,9}:){0,2}\d{1,9}(\.\d+)?", text, re.ASCII) is not None,
        f"walltime {text!r}: PBS has times as HH:MM:SS, MM:SS or SS; submit again with -l walltime=06:00:00",
    )
    seconds = 0
    for part in text.partition(".")[0].split(":"):
        seconds = seconds * 60 + int(part)
    return seconds


def depend(ids: Sequence[str], always: bool, array: bool, dialect: Dialect) -> str:
    """The value of ``-W depend=``.

    A run of a sweep goes on where its own earlier step has succeeded, whatever became of the others: so it waits for
    the end of the array, and looks at its own then. OpenPBS deletes a job behind one that was deleted because of a
    dependency, even with afterany: what runs always waits there for the first job alone, and its script for the others.
    """
    if not ids:
        return ""
    if array:
        kind = "afteranyarray" if dialect == "torque" else "afterany"
        return ":".join([kind, *(f"{one}[]" for one in ids)])
    if always:
        return ":".join(["afterany", *(ids if dialect == "torque" else ids[:1])])
    return ":".join(["afterok", *ids])


def request_command(request: Request, script: str, dialect: Dialect) -> list[str]:
    """The command that submits a request's script."""
    waits = depend(request.after_ids, request.after_any, request.is_array, dialect)
    return submit_command(script, dialect, waits, request.elements if request.is_array else 0, request.throttle)


def submit_command(script: str, dialect: Dialect, depend: str = "", elements: int = 0, throttle: int = 0) -> list[str]:
    """The command that submits a script, alone or as an array of that many elements.

    The dependency and the array are not in the script: when it submits itself again it is one job, and what it
    waited for may be forgotten.
    """
    command = ["qsub"]
    if depend:
        command += ["-W", f"depend={depend}"]
    if elements:
        limit = f"%{throttle}" if throttle else ""
        command += ["-t" if dialect == "torque" else "-J", f"0-{elements - 1}{limit}"]
    return [*command, script]


def _mb(gigabytes: float) -> int:
    return max(1, round(gigabytes * 1024))
