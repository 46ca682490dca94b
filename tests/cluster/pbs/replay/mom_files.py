"""What a job finds and leaves on its nodes: its environment, and the files of its output."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

from store import Job, Store


class JobFiles:
    """One job's own."""

    def __init__(self, store: Store, job: Job) -> None:
        self.store = store
        self.job = job
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.home = store.config["home"]
        self.id = f"{job['key']}.{store.server}"
        self.hosts = [node["name"] for node in job["nodes"]]
        self.unique = list(dict.fromkeys(self.hosts))
        self.nodefile = store.folder / "aux" / self.id
        self.stdout = store.folder / "spool" / f"{job['key']}.OU"
        self.stderr = self.stdout if job["join"] == "oe" else store.folder / "spool" / f"{job['key']}.ER"

    def variables(self, node: int, task: int) -> dict[str, str]:
        """What PBS sets in every process of the job."""
        job = self.job
        scratch = self.store.folder / "tmp" / f"{self.id}-{self.unique[node]}"
        scratch.mkdir(parents=True, exist_ok=True)
        values = {
            "PBS_JOBID": self.id, "PBS_JOBNAME": job["name"], "PBS_QUEUE": "workq", "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_NODENUM": str(node), "PBS_TASKNUM": str(task), "TMPDIR": str(scratch),
            "PBS_O_WORKDIR": job["workdir"], "PBS_O_HOST": self.store.server,
        }  # fmt: skip
        cpus = self.job["nodes"][0]["cpus"]
        if self.store.torque:
            values |= {
                "PBS_NP": str(sum(n["lines"] for n in job["nodes"])), "PBS_NUM_NODES": str(len(job["nodes"])),
                "PBS_NUM_PPN": str(job["nodes"][0]["lines"]), "PBS_WALLTIME": str(job["walltime"]),
                "PBS_VNODENUM": str(node), "PBS_O_INITDIR": job["cwd"],
            }  # fmt: skip
        else:
            values |= {"NCPUS": str(cpus), "OMP_NUM_THREADS": str(cpus)}
        if job["index"] is not None and self.store.torque:
            values["PBS_ARRAYID"] = str(job["index"])
        elif job["index"] is not None:
            values |= {"PBS_ARRAY_INDEX": str(job["index"]), "PBS_ARRAY_ID": f"{job['number']}[].{self.store.server}"}
        return values

    def bare(self) -> dict[str, str]:
        """What a login has."""
        return {"HOME": self.home, "USER": self.user, "LOGNAME": self.user, "SHELL": "/bin/bash",
                "PATH": "/bin:/usr/bin", "LANG": "C.UTF-8"}  # fmt: skip

    def live(self, name: str) -> Path | None:
        """``-k oed``: written at its target while the job runs. ``-k oe`` alone: in $HOME."""
        keep, target = self.job["keep"], self.job[name]
        if name[0] not in keep:
            return None
        if "d" in keep and target and not self.store.torque:
            return self.target(target, name)
        return Path(self.home) / self.default_name(name)

    def default_name(self, name: str) -> str:
        """``name.o12``."""
        suffix = f"{self.job['number']}" + (f"-{self.job['index']}" if self.job["index"] is not None else "")
        return f"{self.job['name'][:15]}.{name[0]}{suffix}"

    def target(self, text: str, name: str) -> Path:
        """Where ``-o`` says: a folder gets a file of its own. Torque expands variables in it, OpenPBS does not."""
        if self.store.torque:
            for variable, value in self.variables(0, 1).items():
                text = text.replace(f"${{{variable}}}", value).replace(f"${variable}", value)
        path = Path(self.job["workdir"]) / text.rpartition(":")[2]
        if path.is_dir():
            return path / (self.default_name(name) if self.store.torque else f"{self.id}.{name[:2].upper()[0]}U")
        return path

    def deliver(self, code: int) -> int:
        """Copy the spooled output to its place; a folder that is not there costs time, the output and the truth."""
        for name, spool in (("out", self.stdout), ("err", self.stderr)):
            if not spool.exists() or (name == "err" and spool == self.stdout):
                continue
            text = self.job[name]
            target = self.target(text, name) if text else Path(self.job["workdir"]) / self.default_name(name)
            if name[0] in self.job["keep"]:
                target = self.live(name) or target
            if not target.parent.is_dir():
                time.sleep(self.store.config["bad_output_s"])
                return 0
            with target.open("ab") as file:
                file.write(spool.read_bytes())
            target.chmod(0o666 & ~int(self.job["umask"], 8))
            spool.unlink()
        return code
