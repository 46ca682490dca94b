"""What a PBS job's environment says: pure functions of recorded variables."""

from __future__ import annotations

import signal
import threading

import pytest

from segdist.config import ConfigError
from segdist.launch.allocation import THIS_MACHINE, Allocation
from segdist.launch.pbs_job import call_later, pbs_allocation, save_before_job_end, seconds_to_save, short_id
from segdist.launch.plan import RankLayout, detect_allocation, plan_ranks, resolve_starter
from segdist.run.folder import RunFolder

JOB = {"PBS_JOBID": "2.pbshead", "PBS_NODEFILE": "/var/spool/pbs/aux/2.pbshead"}


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("2.pbshead\n", "2"),
        ("2451912.v-qsvr-1.aidevcloud", "2451912"),
        ("47[3].pbshead", "47_3"),
        ("8-0.torque", "8_0"),
        ("47[].pbshead", "47"),
        ("12", "12"),
    ],
)
def test_a_job_id_loses_its_server_and_brackets(text: str, short: str) -> None:
    assert short_id(text) == short


@pytest.mark.parametrize("text", ["", "qsub: Unknown queue", "a.12", "12 13"])
def test_what_is_no_job_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a number and a server"):
        short_id(text)


def test_the_hosts_are_those_of_the_node_file_in_its_order() -> None:
    allocation = pbs_allocation({**JOB, "SEGDIST_RESTART": "2"}, lambda _: "n3\nn3\nn1\nn1\n")
    assert allocation == Allocation("pbs", "2", 2, ("n3", "n1"), 2)
    assert pbs_allocation({}) is None


def test_a_node_without_the_node_file_is_told_where_to_start() -> None:
    with pytest.raises(ConfigError, match=r"PBS_NODEFILE='/no/such': cannot be read .* on the job's first node only"):
        pbs_allocation({"PBS_JOBID": "2.pbshead", "PBS_NODEFILE": "/no/such"})


def test_ranks_on_other_machines_choose_their_cores_there() -> None:
    step = RunFolder("run").step("train")
    specs = plan_ranks(RankLayout(2, 2), ["rank"], step, [0, 1], 9, Allocation("pbs", "2", 1, ("n3", "n1"), 2))
    assert [spec.ranks.node for spec in specs] == [0, 0, 1, 1]
    assert {spec.cores for spec in specs} == {()}
    assert specs[3].environment["MASTER_ADDR"] == "n3"
    assert specs[3].environment["SEGDIST_JOB_ID"] == "2"
    assert specs[3].environment["SEGDIST_RESTART"] == "1"


def test_one_node_needs_no_starter() -> None:
    assert resolve_starter("auto", Allocation("pbs", "2", 0, ("n1",), 2), 1, {})[0] == ("local",)
    assert resolve_starter("auto", THIS_MACHINE, 2, {})[0] == ("local",), "two groups of processes of this machine"
    assert resolve_starter("auto", Allocation("slurm", "2", 0, ("n1", "n2")), 2, {}, str)[0] == ("srun",)
    with pytest.raises(ConfigError, match="--starter ssh: needs the nodes of a job around it"):
        resolve_starter("ssh", THIS_MACHINE, 2, {})
    with pytest.raises(ConfigError, match="--starter rsh: is not known"):
        resolve_starter("rsh", Allocation("pbs", "2", 0, ("n1", "n2"), 2), 2, {})


def test_a_pbs_job_is_found(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "nodes").write_text("n1\nn2\n")
    environ = {"PBS_JOBID": "2.pbshead", "PBS_NODEFILE": str(tmp_path / "nodes")}
    assert detect_allocation(environ).hosts == ("n1", "n2")


def test_saving_begins_the_margin_before_the_end() -> None:
    assert seconds_to_save({}, 0.0) is None
    assert seconds_to_save({"SEGDIST_JOB_END": "1000", "SEGDIST_SAVE_MARGIN": "120"}, 400.0) == 480.0
    assert seconds_to_save({"SEGDIST_JOB_END": "1000"}, 900.0) == 50.0, "half of what is left: the margin is longer"
    assert seconds_to_save({"SEGDIST_JOB_END": "1000"}, 1100.0) == 0.0, "late, but better than never"
    with pytest.raises(ConfigError, match="SEGDIST_JOB_END='soon'"):
        seconds_to_save({"SEGDIST_JOB_END": "soon"}, 0.0)


def test_the_launcher_is_sent_usr1_in_time() -> None:
    came = threading.Event()
    earlier = signal.signal(signal.SIGUSR1, lambda *_: came.set())
    try:
        with save_before_job_end({"SEGDIST_JOB_END": "60", "SEGDIST_SAVE_MARGIN": "0.001"}, lambda: 59.99):
            assert came.wait(10)
    finally:
        signal.signal(signal.SIGUSR1, earlier)


def test_a_margin_longer_than_the_job_is_shortened_and_said(capfd: pytest.CaptureFixture[str]) -> None:
    with save_before_job_end({"SEGDIST_JOB_END": "1300", "SEGDIST_SAVE_MARGIN": "300"}, lambda: 1000.0):
        pass
    assert "the job ends 300 s from now, so it saves 150 s before that, and not SEGDIST_SAVE_MARGIN=300" in (
        capfd.readouterr().err
    )
    with save_before_job_end({"SEGDIST_JOB_END": "1700", "SEGDIST_SAVE_MARGIN": "300"}, lambda: 1000.0):
        pass
    assert capfd.readouterr().err == ""


def test_a_step_of_one_node_in_a_job_of_several_has_cores_and_meets_on_this_machine() -> None:
    allocation = Allocation("pbs", "2", 0, ("n3", "n1"), 2)
    (spec,) = plan_ranks(RankLayout(1, 1), ["rank"], RunFolder("run").step("quantize"), [0, 1], 9, allocation)
    assert spec.cores == (0, 1)
    assert spec.environment["MASTER_ADDR"] == "127.0.0.1"
    both = plan_ranks(RankLayout(2, 1), ["rank"], RunFolder("run").step("train"), [0, 1], 9, allocation)
    assert [spec.environment["SEGDIST_PEER"] for spec in both] == ["n1", "n3"]


def test_no_alarm_rings_after_the_end() -> None:
    rung = threading.Event()
    with call_later(0.05, rung.set):
        pass
    assert not rung.wait(0.2)
