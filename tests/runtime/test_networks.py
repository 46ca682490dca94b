"""Hosts whose name is not the address by which others reach them: ranks that meet over a real network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.launch.allocation import Allocation
from segdist.launch.plan import RankLayout, plan_ranks
from segdist.run.folder import RunFolder

from .namespaces import TwoNodes, command_in, missing

WHY = missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY is not None, reason=f"no network of our own here: {WHY}")]
ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--model", "unet", "--width", "4", "--crop", "64x128", "--batch", "2", "--epochs", "1", "--workers", "0",
    "--check", "headers",
)  # fmt: skip
RANK = """
import os, socket, torch
from segdist.runtime.collectives import Collectives
from segdist.system.ranks import detect_ranks
c = Collectives(detect_ranks(os.environ), "gloo", timeout=60, rendezvous_timeout=60)
print(os.environ["GLOO_SOCKET_IFNAME"], c.all_reduce(torch.tensor([c.ranks.rank + 1.0])).item())
print(c.all_gather(socket.gethostname()))
c.close()
"""


def environ_of_a_job() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PBS_", "SLURM_", "GLOO_"))}
    return {**own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_two_nodes_that_know_their_own_names_as_127_0_1_1_meet(tmp_path: Path) -> None:
    job = Allocation("pbs", "77", 0, ("alpha", "beta"), 1)
    step = RunFolder(tmp_path).step("train")
    specs = plan_ranks(RankLayout(2, 1), [sys.executable, "-c", RANK], step, [0], job.port, job)
    with TwoNodes(("alpha", "beta")) as nodes:
        ranks = []
        for node, spec in enumerate(specs):
            other = 1 - node
            hosts = f"127.0.0.1 localhost\n127.0.1.1 {job.hosts[node]}\n192.168.9.{other + 1} {job.hosts[other]}\n"
            ranks.append(nodes.start(node, tmp_path, hosts, spec.argv, {**environ_of_a_job(), **spec.environment}))
        try:
            said = [rank.communicate(timeout=120)[0] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert said == ["cable 3.0\n['alpha', 'beta']\n"] * 2


def test_a_training_on_a_host_that_has_ipv6_alone(tmp_path: Path, streets: Path) -> None:
    run = RunFolder(tmp_path / "run")
    (tmp_path / "nodes").write_text("six\nsix\n")
    launch = (sys.executable, "-m", "segdist.launch", "train", "--run", str(run.path), "--data", str(streets), *SMALL)
    network = ("ip -4 addr del 127.0.0.1/8 dev lo", "ip -6 addr add fd00::1/128 dev lo nodad")
    hosts = "::1 localhost\nfd00::1 six\n"
    done = subprocess.run(
        ["unshare", "--net", *command_in(tmp_path, "six", hosts, network, launch)],
        env={**environ_of_a_job(), "PBS_JOBID": "77.srv", "PBS_NODEFILE": str(tmp_path / "nodes")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = run.step("train").read_result()
    assert (result.status, result.machine["ranks"], result.machine["hosts"]) == ("completed", 2, ["six"])
