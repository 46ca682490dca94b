"""The lease that a killed process has left: it is in nobody's way, and one alone inherits it."""

import dataclasses
import subprocess
import sys

import pytest

from segdist.run import lease
from segdist.run.files import write_json
from segdist.run.folder import RunFolder
from segdist.run.lease import LeaseHeld, acquire
from segdist.run.lease_owner import identity, other_owner, owner_path, read_owner
from segdist.system.procfs import process_start

JOB = {"SEGDIST_JOB_CLUSTER": "slurm", "SEGDIST_JOB_ID": "12"}


@pytest.fixture
def step(tmp_path):
    return RunFolder(tmp_path).step("train")


def put(step, owner):
    write_json(owner_path(step), dataclasses.asdict(owner))


def dead_process():
    """A process id with its start that are no longer there."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = process_start(process.pid)
    return process.pid, started


def test_a_killed_owner_keeps_nobody_from_writing_how_another_job_ended(step):
    pid, started = dead_process()
    put(step, dataclasses.replace(identity(JOB), pid=pid, started=started))
    assert other_owner(step, {**JOB, "SEGDIST_JOB_ID": "13"}) is None
    put(step, identity(JOB))
    assert other_owner(step, {**JOB, "SEGDIST_JOB_ID": "13"}).job == "12"


def test_who_has_watched_a_dead_owner_for_longer_than_another_comes_too_late(step, monkeypatch):
    pid, started = dead_process()
    put(step, dataclasses.replace(identity(JOB), pid=pid, started=started))
    faster = identity({**JOB, "SEGDIST_JOB_ID": "14"})
    monkeypatch.setattr(lease, "_refuse_living", lambda *_: put(step, faster))
    with pytest.raises(LeaseHeld, match="has just been taken by job 14 of slurm"):
        acquire(step, {**JOB, "SEGDIST_JOB_ID": "13"})
    assert read_owner(step) == faster
