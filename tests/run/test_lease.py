"""Who may write to a step: one lease at a time, a later life of a job before an earlier, the living before all."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from segdist.config import ConfigError
from segdist.run import lease, lease_owner
from segdist.run.files import write_json
from segdist.run.folder import RunFolder
from segdist.run.lease import LeaseHeld, LeaseLost, acquire, require_free
from segdist.run.lease_owner import (
    heartbeat_path,
    identity,
    other_owner,
    owner_path,
    read_heartbeat,
    read_owner,
    superseded,
)
from segdist.run.result import Result, job_of
from segdist.system.procfs import process_start

JOB = {"SEGDIST_JOB_CLUSTER": "slurm", "SEGDIST_JOB_ID": "12"}


def restarted(count):
    return {**JOB, "SEGDIST_RESTART": str(count)}


@pytest.fixture
def step(tmp_path):
    return RunFolder(tmp_path).step("train")


def put(step, owner):
    write_json(owner_path(step), dataclasses.asdict(owner))


def elsewhere(**changes):
    """An owner on another machine."""
    return dataclasses.replace(identity(JOB), host="n3", machine="another boot", job="11", **changes)


def dead_process():
    """A process id with its start that are no longer there."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = process_start(process.pid)
    return process.pid, started


def test_a_lease_names_job_host_and_process_and_is_gone_after_its_release(step):
    held = acquire(step, restarted(1))
    owner = read_owner(step)
    assert (owner.cluster, owner.job, owner.restart, owner.pid) == ("slurm", "12", 1, os.getpid())
    assert str(owner) == f"job 12 of slurm (restart 1) on {owner.host}, pid {os.getpid()}"
    held.check()
    held.release()
    assert list(step.path.iterdir()) == []


def test_a_later_life_takes_over_and_the_earlier_one_may_not_write_any_more(step):
    first = acquire(step, restarted(0))
    second = acquire(step, restarted(1))
    second.check()
    with pytest.raises(LeaseLost, match=r"is held by job 12 of slurm \(restart 1\) .* writes nothing more there"):
        first.check()
    first.release()
    second.check()  # what the earlier one gives back was not its own
    second.release()


def test_an_earlier_life_is_refused_while_the_later_one_runs_and_after_it_has_ended(step):
    later = acquire(step, restarted(2))
    with pytest.raises(LeaseLost, match=r"restart 1 of a job that goes on as job 12 of slurm \(restart 2\)"):
        acquire(step, restarted(1))
    assert superseded(step, restarted(1)) == later.own
    assert superseded(step, restarted(2)) is None
    assert superseded(step, {**restarted(1), "SEGDIST_JOB_ID": "13"}) is None
    step.write_result(Result("train", "train", "completed", "2026-01-31T12:00:00Z", job=job_of(restarted(2))))
    later.release()
    assert superseded(step, restarted(1)).restart == 2
    with pytest.raises(LeaseLost, match="restart 1"):
        acquire(step, restarted(1))


def test_another_job_is_refused_while_the_owner_is_alive_and_told_who_it_is(step):
    held = acquire(step, JOB)
    for other in ({**JOB, "SEGDIST_JOB_ID": "13"}, {}, JOB):
        with pytest.raises(
            LeaseHeld, match=r"job 12 of slurm \(restart 0\) on .* is at work on it; wait for it, cancel it"
        ):
            acquire(step, other)
    held.check()
    held.release()


def test_an_owner_whose_process_is_gone_is_replaced_at_once(step):
    pid, started = dead_process()
    put(step, dataclasses.replace(identity(JOB), pid=pid, started=started))
    said = []
    acquire(step, {}, log=said.append).release()
    assert "taken over from job 12 of slurm" in said[0]


def test_a_process_id_that_was_given_to_a_stranger_is_no_sign_of_life(step):
    put(step, dataclasses.replace(identity(JOB), started=1))
    acquire(step, {}).release()


def test_a_zombie_is_dead():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(process.pid) is None


def test_an_owner_on_another_machine_is_alive_while_its_heartbeat_changes(step, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    far = elsewhere()
    put(step, far)
    alive = lease.Lease(step, far)
    alive.start()
    with pytest.raises(LeaseHeld, match=r"job 11 of slurm \(restart 0\) on n3"):
        acquire(step, {}, watch_s=5)
    alive.release()


def test_an_owner_on_another_machine_whose_heartbeat_stands_still_is_replaced(step):
    put(step, elsewhere())
    heartbeat_path(step).write_text("0123 7\n")
    said = []
    acquire(step, {}, watch_s=0.2, log=said.append).release()
    assert "watching its heartbeat for up to 0.2 s" in said[0]
    assert "taken over from job 11" in said[1]


def test_the_heartbeat_finds_that_the_lease_is_lost(step, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    held = acquire(step, JOB)
    put(step, elsewhere())
    assert held.lost.wait(10)
    held.release()
    assert read_owner(step).job == "11"


def test_a_lease_that_was_away_for_a_while_counts_no_more(step):
    held = acquire(step, JOB)
    text = owner_path(step).read_text()
    owner_path(step).unlink()
    with pytest.raises(LeaseLost):
        held.check()
    owner_path(step).write_text(text)
    with pytest.raises(LeaseLost, match="was away for a while"):
        held.check()
    held.release()


def test_who_prepares_a_job_is_refused_while_another_works_there(step):
    require_free(step, {})
    held = acquire(step, JOB)
    for environ in ({}, JOB, {**JOB, "SEGDIST_JOB_ID": "13"}):
        with pytest.raises(LeaseHeld, match="job 12 of slurm .* is at work on it; wait for it, cancel it"):
            require_free(step, environ)
    require_free(step, restarted(1))
    held.release()
    require_free(step, {})


def test_a_holder_file_that_was_removed_stops_its_owner(step):
    held = acquire(step, JOB)
    owner_path(step).unlink()
    with pytest.raises(LeaseLost, match=r"has lost its holder.json"):
        held.check()
    held.release()


def test_of_many_that_acquire_at_the_same_moment_one_gets_it(step):
    outcomes = []
    ready = threading.Barrier(8)

    def contend(number):
        ready.wait()
        try:
            outcomes.append(acquire(step, {"SEGDIST_JOB_ID": str(number)}))
        except LeaseHeld as refused:
            outcomes.append(refused)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (outcome for outcome in outcomes if isinstance(outcome, lease.Lease))
    winner.check()
    winner.release()


def test_whose_step_it_is_decides_what_a_launcher_may_write(step):
    assert other_owner(step, JOB) is None
    held = acquire(step, JOB)
    assert other_owner(step, JOB) is None
    assert other_owner(step, {}) == held.own
    assert other_owner(step, {**JOB, "SEGDIST_JOB_ID": "13"}) == held.own
    held.release()
    by_hand = acquire(step, {})
    assert other_owner(step, {}) == by_hand.own
    by_hand.release()
    pid, started = dead_process()
    put(step, dataclasses.replace(identity({}), pid=pid, started=started))
    assert other_owner(step, {}) is None


def test_a_holder_file_that_says_nothing_is_named(step):
    step.path.mkdir()
    owner_path(step).write_text("{}")
    with pytest.raises(ConfigError, match=r"holder.json: does not say who works on the step .* remove it"):
        acquire(step, JOB)
    with pytest.raises(ConfigError, match="SEGDIST_RESTART='twice': must be a whole number"):
        identity({"SEGDIST_RESTART": "twice"})


def test_the_heartbeat_goes_on_where_the_holder_file_cannot_be_read_and_says_so(step, monkeypatch, capfd):
    """Others take a job without a heartbeat for dead after 15 s."""
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    held = acquire(step, JOB)
    text = owner_path(step).read_text()

    def await_beats(count):
        seen, end = set(), time.monotonic() + 20
        while len(seen) <= count:
            assert time.monotonic() < end
            seen.add(read_heartbeat(step))
            time.sleep(0.01)

    for spoilt in ("{", "\udcff", '{"job": 1}'):
        owner_path(step).write_bytes(spoilt.encode("utf-8", "surrogateescape"))
        await_beats(5)
        assert not held.lost.is_set()
        write_json(owner_path(step), json.loads(text))
        await_beats(5)
    held.check()
    held.release()
    said = capfd.readouterr().err
    assert said.count("holder.json: does not say who works on the step") == 3
    assert said.count("the heartbeat goes on") == 3
    assert said.count("holder.json read again") == 3


def test_a_heartbeat_that_cannot_be_written_goes_on_and_says_so_once(step, monkeypatch, capfd):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    tries = []

    def refuse(source, target):
        tries.append(target)
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))

    monkeypatch.setattr(lease, "replace_file", refuse)
    held = acquire(step, JOB)
    while len(tries) < 5:
        time.sleep(0.01)
    monkeypatch.undo()
    held.release()
    said = capfd.readouterr().err
    assert said.count(f"{heartbeat_path(step)}'); others may think this job dead") == 1
    assert "Input/output error" in said


def test_a_start_that_ended_before_it_wrote_its_holder_file_is_taken_over(step, monkeypatch):
    monkeypatch.setattr(lease_owner, "UNFINISHED_S", 0.1)
    step.path.mkdir()
    owner_path(step).write_bytes(b"")
    said = []
    acquire(step, JOB, log=said.append).release()
    assert said == [f"{step.path}: taken over from a start that ended before it had written holder.json"]


def test_an_owner_that_writes_its_holder_file_late_is_waited_for(step, monkeypatch):
    monkeypatch.setattr(lease_owner, "UNFINISHED_S", 10.0)
    step.path.mkdir()
    owner_path(step).write_bytes(b"")
    writing = threading.Timer(0.3, put, (step, elsewhere()))
    writing.start()
    assert read_owner(step).job == "11"
    writing.join()
