"""What ``update_parameters`` of the submitit plugin takes, and the request that it becomes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.clusters.request import After, Request

EXPORTED = ("PATH", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")
"""Variables of the submitting shell that a job gets; the rest is a login's."""


def exported(names: Sequence[str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Those of the variables that are set, with their values."""
    return {name: environ[name] for name in names if name in environ}


@dataclass(frozen=True)
class Parameters:
    """The plugin's parameters.

    ``time`` is in minutes; None leaves the walltime to the queue. ``ncpus`` is per node. ``depend`` is the value of
    ``-W depend=``; ``after`` names the files of the same jobs, which say what the server does not: that one of them
    goes on in another job. ``export`` names variables of this shell, ``variables`` gives values. ``starter`` chooses
    how tasks get onto the nodes; with ``use_starter=False`` the function runs once, on the first node.
    """

    job_name: str = "submitit"
    time: float | None = 5
    nodes: int = 1
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    ncpus: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    queue: str = ""
    account: str = ""
    properties: Sequence[str] = ()
    select: str = ""
    place: str = ""
    options: Sequence[str] = ()
    dialect: str = "auto"
    depend: str = ""
    after: Sequence[After] = ()
    array_parallelism: int = 0
    umask: str = "022"
    cwd: str | None = None
    export: Sequence[str] = EXPORTED
    variables: dict[str, str] | None = None
    setup: Sequence[str] | None = None
    teardown: Sequence[str] | None = None
    stderr_to_stdout: bool = False
    signal_delay_s: int | None = 90
    save_margin_s: int = 300
    rerun: bool = True
    starter: str = "auto"
    use_starter: bool = True

    def request(self, command: str, folder: str, several: bool = False) -> Request:
        """The same as a request; ``several`` tasks have an output file each, and the script one of its own.

        Raises:
            ConfigError: for a value that cannot be.
            ValueError: for GPUs, which this plugin does not ask for.
        """
        if self.gpus_per_node:
            raise ValueError(
                f"gpus_per_node={self.gpus_per_node}: is not supported; use options for your site's resource"
            )
        ranks = max(1, self.tasks_per_node or 1)
        return Request(
            command=command,
            folder=folder,
            name=self.job_name,
            nodes=self.nodes,
            cores=self.ncpus or ranks * (self.cpus_per_task or 1),
            ranks_per_node=ranks,
            mem_gb=self.mem_gb,
            walltime_s=None if self.time is None else round(self.time * 60),
            queue=self.queue,
            account=self.account,
            properties=tuple(self.properties),
            select=self.select,
            place=self.place,
            options=tuple(self.options),
            umask=self.umask,
            cwd=os.getcwd() if self.cwd is None else self.cwd,  # noqa: PTH109 (as the shell sees it)
            exports={**exported(self.export), **(self.variables or {})},
            # What starts several tasks passes USR1 on to them.
            setup=(*(["export SUBMITIT_PREEMPT_SIGNAL=USR1"] if several else []), *(self.setup or [])),
            signal="USR1" if several else "USR2",
            teardown=tuple(self.teardown or []),
            output="_log" if several else "_0_log",
            stderr_to_stdout=self.stderr_to_stdout or several,
            signal_delay_s=self.signal_delay_s,
            save_margin_s=self.save_margin_s,
            rerun=self.rerun,
            throttle=self.array_parallelism or 0,
            after=tuple(self.after),
        )


def defaults() -> dict[str, Any]:
    """The default value of every parameter."""
    return {field.name: field.default for field in dataclasses.fields(Parameters)}
