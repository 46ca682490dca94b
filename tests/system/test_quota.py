"""A CPU quota of the control groups is a share of cores: version 1 and 2, nested, in a container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.system.affinity import quota_share
from segdist.system.quota import CpuQuota, cpu_quota
from segdist.system.user import user_name

V1 = "33 24 0:28 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "30 24 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HERE = "/sys/fs/cgroup/cpu,cpuacct"


def reader(groups, mounts, files):
    found = {"/proc/self/cgroup": groups, "/proc/self/mountinfo": mounts, **files}

    def read(path):
        if path not in found:
            raise FileNotFoundError(path)
        return found[path]

    return read


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        ("0::/a/b\n", V2.format(root="/"), {"/sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", V2.format(root="/"), {"/sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        (
            "0::/a/b\n",
            V2.format(root="/"),
            {"/sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "/sys/fs/cgroup/a/cpu.max": "400000 100000\n"},
            4.0,
        ),
        ("0::/\n", V2.format(root="/"), {"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../other\n", V2.format(root="/"), {"/sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        (
            "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n",
            V1.format(root="/docker/abc"),
            {f"{HERE}/cpu.cfs_quota_us": "200000\n", f"{HERE}/cpu.cfs_period_us": "100000\n"},
            2.0,
        ),
        (
            "4:cpu,cpuacct:/slice/job\n",
            V1.format(root="/"),
            {f"{HERE}/slice/cpu.cfs_quota_us": "250000\n", f"{HERE}/slice/cpu.cfs_period_us": "50000\n",
             f"{HERE}/slice/job/cpu.cfs_quota_us": "-1\n", f"{HERE}/slice/job/cpu.cfs_period_us": "100000\n"},
            5.0,
        ),
        ("4:cpuset:/x\n", V1.format(root="/").replace("cpu,", "cpuset,"), {}, None),
        ("", "", {}, None),
    ],
)  # fmt: skip
def test_the_narrowest_quota_counts(groups, mounts, files, expected):
    quota = cpu_quota(reader(groups, mounts, files))
    assert (quota.cpus if quota else None) == expected
    assert quota is None or quota.source in files


def test_without_proc_there_is_none():
    def read(path):
        raise PermissionError(path)

    assert cpu_quota(read) is None


@pytest.mark.parametrize(
    ("cpus", "ranks", "threads"), [(0.5, 1, 1), (1.9, 1, 1), (4, 1, 4), (4, 2, 2), (7, 2, 3), (2, 8, 1)]
)
def test_ranks_of_a_node_share_it_in_whole_threads(cpus, ranks, threads):
    assert quota_share(CpuQuota(cpus, ""), ranks) == threads
    assert quota_share(None, ranks) is None


def test_a_rank_in_a_real_group_with_a_quota_has_as_many_threads(tmp_path):
    parent = Path("/sys/fs/cgroup/cpu")
    if os.geteuid() != 0 or not (parent / "cpu.cfs_quota_us").exists() or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs root, two cores and a control group of version 1")
    group = parent / f"segdist-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        code = (
            f"import os, pathlib; pathlib.Path({str(group / 'cgroup.procs')!r}).write_text(str(os.getpid()))\n"
            "from segdist.system.affinity import pin_cores\n"
            "print(len(pin_cores(0, 1, 0)), os.environ['OMP_NUM_THREADS'], len(os.sched_getaffinity(0)) > 1)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    finally:
        group.rmdir()
    assert done.stdout.split() == ["1", "1", "True"], done.stderr


def test_a_uid_without_a_name_is_its_number(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert user_name() == f"uid {os.getuid()}"
