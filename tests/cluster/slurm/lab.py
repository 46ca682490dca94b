"""A real Slurm of several nodes on one machine, for tests: ``python tests/cluster/slurm/lab.py start|stop|status``.

Debian's packages run several slurmd on one host. Each node is a set of namespaces of its own (network, host name,
processes, mounts), so a node can be powered off, or cut from the network, and the others see what they would see
of a real one. Root is needed for that. All state is in one folder; its path must be short, as a unix socket's may
have 107 characters.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "munged", "nsenter", "unshare", "ip")
PACKAGES = "slurmctld slurmd slurm-client munge iproute2 util-linux"
NETWORK = "10.213.0"
BRIDGE = "seglab0"
CONTROL = f"{NETWORK}.254"


def missing() -> str | None:
    """Why the cluster cannot run here, or None."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)} (apt-get install {PACKAGES})"
    if os.geteuid() != 0:
        return "nodes with a network of their own need root"
    probe = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    return f"namespaces are not allowed: {probe.stderr.strip()}" if probe.returncode else None


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition; TimeoutError naming ``what`` where it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


class SlurmLab:
    """The cluster; ``start`` and ``stop`` it, or use it as a context."""

    def __init__(self, folder: Path, nodes: int = 4, cores: int = 2, memory_mb: int = 5000) -> None:
        self.folder = folder
        self.nodes = nodes
        self.cores = cores
        self.memory_mb = memory_mb
        self.conf = folder / "slurm.conf"
        self.small_disk = folder / "small"
        """A disk of 8 MB that all nodes share."""
        self._environ = {**os.environ, "SLURM_CONF": str(self.conf)}

    # The cluster ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start munged, slurmctld and every node; wait until all nodes are idle."""
        for name in ("munge", "run", "log", "state", "spool", "small"):
            (self.folder / name).mkdir(parents=True)
        self._call("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(self.small_disk))
        (self.folder / "munge").chmod(0o755)
        self._write_configuration()
        key = self.folder / "munge" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        m = self.folder / "munge"
        self._call(
            "munged", f"--key-file={key}", f"--socket={m}/munge.socket", f"--pid-file={m}/munged.pid",
            f"--log-file={m}/munged.log", f"--seed-file={m}/seed",
        )  # fmt: skip
        self._call("ip", "link", "add", BRIDGE, "type", "bridge")
        self._call("ip", "addr", "add", f"{CONTROL}/24", "dev", BRIDGE)
        self._call("ip", "link", "set", BRIDGE, "up")
        self._call("slurmctld", "-c")
        wait_until(lambda: self._works("scontrol", "ping"), 15, "slurmctld answers")
        for number in range(1, self.nodes + 1):
            self.power_on(f"n{number}")
        wait_until(lambda: self.idle_nodes() == self.nodes, 30, f"{self.nodes} nodes are idle")

    def stop(self) -> None:
        """End every node with all that runs on it, then the daemons; nothing is left."""
        for number in range(1, self.nodes + 1):
            self.power_off(f"n{number}")
        for name in ("run/slurmctld.pid", "munge/munged.pid"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pid = int((self.folder / name).read_text())
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda pid=pid: not _alive(pid), 10, f"{name} ends")
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)
        subprocess.run(["umount", "--lazy", str(self.small_disk)], capture_output=True, check=False)

    def __enter__(self) -> SlurmLab:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that make Slurm's commands talk to this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    def idle_nodes(self) -> int:
        """How many nodes have no job and answer."""
        return len(set(self.output("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split()))

    def output(self, *command: str) -> str:
        """What a command of this cluster prints; CalledProcessError where it fails."""
        return subprocess.run(command, env=self._environ, capture_output=True, text=True, check=True).stdout

    # A node -----------------------------------------------------------------------------------------------

    def power_on(self, node: str) -> None:
        """Start a node: namespaces, network, slurmd."""
        number, space = int(node[1:]), f"seglab-{node}"
        self._call("ip", "netns", "add", space)
        self._call("ip", "link", "add", f"sgl{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
        self._call("ip", "link", "set", f"sgl{number}", "master", BRIDGE, "up")
        self._call("ip", "-n", space, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        self._call("ip", "-n", space, "link", "set", "eth0", "up")
        self._call("ip", "-n", space, "link", "set", "lo", "up")
        boot = (
            f"hostname {node}; mount --bind {self.folder}/hosts /etc/hosts; "
            f"mount --bind {self.folder}/nsswitch.conf /etc/nsswitch.conf; mount -t tmpfs tmpfs /dev/shm; "
            f"exec slurmd -D -N {node}"
        )
        # nsenter, as `ip netns exec` hides /sys/fs/cgroup, without which slurmd dies; init of the new pid namespace
        # is a shell that waits, so that with it all that runs on the node is gone at once.
        command = (
            "nsenter", f"--net=/run/netns/{space}", "unshare", "--uts", "--mount", "--ipc", "--pid", "--fork",
            "--kill-child", "--mount-proc", "--propagation", "private", "bash", "-c",
            f"trap : TERM; bash -c '{boot}' & while kill -0 $! 2>/dev/null; do wait; done",
        )  # fmt: skip
        with (self.folder / "log" / f"node.{node}.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._pid_file(node).write_text(str(process.pid))

    def power_off(self, node: str) -> None:
        """Everything on the node dies at once, and its network is gone."""
        file = self._pid_file(node)
        if file.exists():
            pid = int(file.read_text())
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            wait_until(lambda: not _alive(pid), 10, f"{node} is off")
            file.unlink()
        for command in (("ip", "link", "del", f"sgl{node[1:]}"), ("ip", "netns", "del", f"seglab-{node}")):
            subprocess.run(command, capture_output=True, check=False)

    def cut(self, node: str) -> None:
        """Pull the node's network plug; what runs on it runs on."""
        self._call("ip", "link", "set", f"sgl{node[1:]}", "down")

    def plug(self, node: str) -> None:
        """Put the network plug back."""
        self._call("ip", "link", "set", f"sgl{node[1:]}", "up")

    def restore(self, node: str) -> None:
        """Whatever was done to the node, it is on, and on the network, again."""
        if self._pid_file(node).exists():
            self.plug(node)
        else:
            self.power_on(node)

    # Inside -----------------------------------------------------------------------------------------------

    def _pid_file(self, node: str) -> Path:
        return self.folder / "run" / f"node.{node}.pid"

    def _call(self, *command: str) -> None:
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")

    def _works(self, *command: str) -> bool:
        return subprocess.run(command, env=self._environ, capture_output=True, check=False).returncode == 0

    def _write_configuration(self) -> None:
        lab, head = self.folder, socket.gethostname().split(".")[0]
        nodes = [f"n{number}" for number in range(1, self.nodes + 1)]
        lines = [
            "ClusterName=lab",
            f"SlurmctldHost={head}({CONTROL})",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            # A requeued job waits for its old credential to expire: 121 s by default.
            f"AuthInfo=socket={lab}/munge/munge.socket,cred_expire=5",
            "SlurmctldPort=26817",
            f"SlurmctldPidFile={lab}/run/slurmctld.pid",
            f"SlurmdPidFile={lab}/run/slurmd.%n.pid",
            f"SlurmdSpoolDir={lab}/spool/%n",
            f"StateSaveLocation={lab}/state",
            f"SlurmctldLogFile={lab}/log/slurmctld.log",
            f"SlurmdLogFile={lab}/log/slurmd.%n.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SwitchType=switch/none",
            "MpiDefault=none",
            "MailProg=/bin/true",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SlurmdParameters=config_overrides",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1",
            "PropagateResourceLimits=NONE",
            "ReturnToService=2",
            "SlurmdTimeout=10",
            "MessageTimeout=5",
            "TCPTimeout=2",
            "KillWait=5",
            "UnkillableStepTimeout=15",
            "MinJobAge=3600",
            # Ids that start at 1 again would find the files of an earlier cluster's jobs.
            f"FirstJobId={random.randrange(1, 30000) * 100}",
            "EnforcePartLimits=ALL",
            "JobRequeue=1",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            *(
                f"NodeName={node} NodeHostname={node} NodeAddr={NETWORK}.{node[1:]} Port=26818 "
                f"CPUs={self.cores} RealMemory={self.memory_mb} Feature=clx,gold6128 State=UNKNOWN"
                for node in nodes
            ),
            "PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
            "PartitionName=short Nodes=ALL MaxTime=00:05:00 State=UP",
        ]
        self.conf.write_text("\n".join(lines) + "\n")
        # Else slurmd dies where /sys/fs/cgroup is not mounted, though no cgroup plugin is used.
        (lab / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        hosts = ["127.0.0.1 localhost", f"{CONTROL} {head}", *(f"{NETWORK}.{node[1:]} {node}" for node in nodes)]
        (lab / "hosts").write_text("\n".join(hosts) + "\n")
        switch = [line for line in Path("/etc/nsswitch.conf").read_text().splitlines() if not line.startswith("hosts:")]
        (lab / "nsswitch.conf").write_text("\n".join([*switch, "hosts: files"]) + "\n")


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[SlurmLab]:
    """A cluster in a folder that is made, and removed at the end."""
    folder.mkdir(parents=True)
    lab = SlurmLab(folder)
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main(command: str) -> None:
    """Start or stop a cluster by hand."""
    lab = SlurmLab(Path(os.environ.get("SEGDIST_SLURM_LAB", "/tmp/seglab")))
    if command == "start":
        why = missing()
        if why:
            sys.exit(f"no cluster here: {why}")
        lab.start()
        print(f"export SLURM_CONF={lab.conf}")
    elif command == "stop":
        lab.stop()
        shutil.rmtree(lab.folder, ignore_errors=True)
    else:
        print(lab.output("sinfo", "--Node", "--long"), lab.output("squeue", "--states=all"), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "status")
