"""Network namespaces as nodes: each with a network, a host name and an /etc/hosts of its own. They need root."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def missing() -> str | None:
    """Why there can be none here, or None."""
    absent = [program for program in ("unshare", "ip", "mount", "nsenter") if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)}"
    if os.geteuid() != 0:
        return "namespaces with a network of their own need root"
    probe = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return f"namespaces are not allowed: {probe.stderr.strip()}" if probe.returncode else None


def command_in(folder: Path, name: str, hosts: str, network: Sequence[str], command: Sequence[str]) -> list[str]:
    """The command that runs another one on a node.

    Args:
        folder: for the node's files.
        name: host name of the node.
        hosts: text of its /etc/hosts, which is all it knows of names.
        network: shell lines that make its network.
        command: what runs there.
    """
    (folder / f"hosts.{name}").write_text(hosts)
    switch = [line for line in Path("/etc/nsswitch.conf").read_text().splitlines() if not line.startswith("hosts:")]
    (folder / "nsswitch.conf").write_text("\n".join([*switch, "hosts: files"]) + "\n")
    lines = [
        f"hostname {name}",
        f"mount --bind {shlex.quote(str(folder / f'hosts.{name}'))} /etc/hosts",
        f"mount --bind {shlex.quote(str(folder / 'nsswitch.conf'))} /etc/nsswitch.conf",
        "ip link set lo up",
        *network,
        f"exec {shlex.join(command)}",
    ]
    return ["unshare", "--mount", "--uts", "--propagation", "private", "bash", "-ec", "\n".join(lines)]


class TwoNodes:
    """Two network namespaces with a cable between them: 192.168.9.1 and 192.168.9.2; use it as a context."""

    def __init__(self, names: tuple[str, str]) -> None:
        self.names = names
        self._spaces = [f"sd{os.getpid()}-{name}" for name in names]

    def __enter__(self) -> TwoNodes:
        first, second = self._spaces
        try:
            for space in self._spaces:
                _ip("netns", "add", space)
            _ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
            for number, space in enumerate(self._spaces, 1):
                _ip("-n", space, "addr", "add", f"192.168.9.{number}/24", "dev", "cable")
                _ip("-n", space, "link", "set", "cable", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def start(
        self, node: int, folder: Path, hosts: str, command: Sequence[str], environ: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        """Start a command on a node; its output is in a pipe."""
        inside = command_in(folder, self.names[node], hosts, (), command)
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self._spaces[node]}", *inside],
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
