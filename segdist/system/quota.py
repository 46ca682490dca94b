"""The CPU quota of the control groups around this process: version 2's ``cpu.max``, version 1's ``cfs_quota``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from segdist.system.procfs import ReadText, read_text


@dataclass(frozen=True)
class CpuQuota:
    """So many CPUs' worth of time this process and its group may take, and the file that says so."""

    cpus: float
    source: str

    @property
    def cores(self) -> int:
        """Whole cores of it, at least one: a thread more would be held up in each period, and the others wait."""
        return max(1, int(self.cpus + 1e-6))


def cpu_quota(read: ReadText = read_text) -> CpuQuota | None:
    """The narrowest quota of this process's control group and of those above it; None where there is none.

    Args:
        read: reads /proc and /sys; a test gives those of another machine.
    """
    found: list[CpuQuota] = []
    try:
        groups = [line.split(":", 2) for line in read("/proc/self/cgroup").splitlines() if line.count(":") >= 2]
        mounts = [line.split() for line in read("/proc/self/mountinfo").splitlines()]
    except OSError:  # no /proc: nothing is known of a quota
        return None
    for fields in mounts:
        dash = fields.index("-") if "-" in fields else len(fields)
        if len(fields) <= dash + 3:
            continue
        root, place, kind, options = fields[3], fields[4], fields[dash + 1], fields[dash + 3].split(",")
        for number, controllers, path in groups:
            if (kind == "cgroup2" and number == "0" and not controllers) or (
                kind == "cgroup" and "cpu" in options and "cpu" in controllers.split(",")
            ):
                found += _quotas(place, root, path, kind == "cgroup2", read)
    return min(found, key=lambda quota: quota.cpus, default=None)


def _quotas(place: str, root: str, path: str, version_2: bool, read: ReadText) -> list[CpuQuota]:
    """Of a group and those above it. In a container the mount shows a part of the tree: what is above ``root`` is not
    there, and a path of another part is that of the mount itself."""
    parts = PurePosixPath(path).parts[1:]
    above = PurePosixPath(root).parts[1:]
    below = parts[len(above) :] if parts[: len(above)] == above and ".." not in parts else ()
    found = []
    for depth in range(len(below) + 1):
        folder = "/".join([place, *below[:depth]])
        quota = _version_2(f"{folder}/cpu.max", read) if version_2 else _version_1(folder, read)
        if quota is not None:
            found.append(quota)
    return found


def _version_2(file: str, read: ReadText) -> CpuQuota | None:
    try:
        quota, period = read(file).split()[:2]
        return None if quota == "max" else CpuQuota(int(quota) / int(period), file)
    except (OSError, ValueError, ZeroDivisionError):  # the root has no such file
        return None


def _version_1(folder: str, read: ReadText) -> CpuQuota | None:
    file = f"{folder}/cpu.cfs_quota_us"
    try:
        quota, period = int(read(file)), int(read(f"{folder}/cpu.cfs_period_us"))
        return CpuQuota(quota / period, file) if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
