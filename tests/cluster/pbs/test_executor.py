"""The submitit plugin on real (replayed) servers: what submitit's own tests check for Slurm."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import submitit
from submitit.core import plugins, utils
from submitit.core.job_environment import JobEnvironment

from jobs.clusters.pbs.executor import PbsExecutor, PbsJob
from jobs.clusters.pbs.watcher import PbsInfoWatcher

from .conftest import ROOT, Lab, wait_until

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # jobs cannot import the tests


TORQUE = pytest.mark.parametrize("lab", ["torque"], indirect=True)
PBSPRO = pytest.mark.parametrize("lab", ["pbspro"], indirect=True)


def add(x: int, y: int) -> int:
    """A function."""
    print("hop")
    print("an error stream", file=sys.stderr)
    return x + y


def fail() -> None:
    """One that fails."""
    raise ValueError("too bad")


def whoami() -> tuple[Any, ...]:
    """What a task knows about itself."""
    env = JobEnvironment()
    numbers = (env.num_tasks, env.num_nodes, env.node, env.global_rank, env.local_rank)
    place = (os.environ["PBS_NODENUM"], str(Path.cwd()), os.environ.get("VIRTUAL_ENV"))
    return (env.cluster, env.job_id, *numbers, tuple(env.hostnames), *place)


class Counter(submitit.helpers.Checkpointable):  # type: ignore[misc]
    """Runs until it has been started twice."""

    def __init__(self, ready: str, started: int = 0) -> None:
        self.ready = ready
        self.started = started

    def __call__(self) -> int:
        """Return in the second run."""
        Path(self.ready).touch()
        while self.started == 0:
            time.sleep(0.05)
        return self.started

    def checkpoint(self) -> utils.DelayedSubmission:
        """Go on with one more."""
        return utils.DelayedSubmission(Counter(self.ready, self.started + 1))


@pytest.fixture
def pbs(login_node: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """This process is a shell on the login node; nothing waits long."""
    lab = login_node
    monkeypatch.setenv("VIRTUAL_ENV", "/opt/venv with space")
    monkeypatch.chdir(lab.work)
    monkeypatch.setattr(PbsJob, "watcher", PbsInfoWatcher(delay_s=2))
    monkeypatch.setattr(PbsJob, "_results_timeout_s", 1)
    return lab


def executor(lab: Lab, folder: str = "logs", **parameters: Any) -> PbsExecutor:
    """An executor with a folder on shared storage."""
    made = PbsExecutor(lab.work / folder)
    made.update_parameters(signal_delay_s=None, **parameters)
    return made


def test_the_entry_points_are_those_of_this_package() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'executor = "jobs.clusters.pbs.executor:PbsExecutor"' in text
    assert 'job_environment = "jobs.clusters.pbs.environment:PbsJobEnvironment"' in text


def test_auto_executor_submits_a_function_and_gets_its_result(pbs: Lab) -> None:
    assert plugins.get_executors()["pbs"].affinity() == 2
    auto = submitit.AutoExecutor(pbs.work / "logs", cluster="pbs")
    auto.update_parameters(timeout_min=10, name="my job", pbs_queue="batch")
    job = auto.submit(add, 1, 2)
    assert job.job_id == "1"
    assert job.result() == 3
    assert "hop" in job.stdout()
    assert "an error stream" in job.stderr()
    assert pbs.job("1")["name"] == "my_job"
    assert pbs.wait("1")["out"] == f"{pbs.work}/logs/"
    assert list((pbs.work / "logs").glob("my_job.o1" if pbs.torque else "1.pbshead.OU")), "the folder was there"
    wait_until(lambda: job.watcher.get_state("1", mode="force") == "COMPLETED")


def test_a_failing_function_raises_with_its_traceback(pbs: Lab) -> None:
    job = executor(pbs).submit(fail)
    with pytest.raises(utils.FailedJobError, match="ValueError: too bad"):
        job.result()
    assert isinstance(job.exception(), utils.FailedJobError)
    wait_until(lambda: job.watcher.get_state(job.job_id, mode="force") == "FAILED")


def test_map_array_and_batch_are_one_array(pbs: Lab) -> None:
    made = executor(pbs, array_parallelism=2)
    jobs = made.map_array(add, [1, 2, 3], [10, 20, 30])
    assert [job.job_id for job in jobs] == ["1_0", "1_1", "1_2"]
    assert pbs.job("1[]")["array"] == {"indices": [0, 1, 2], "throttle": 2}
    with made.batch():
        batch = [made.submit(add, k, 1) for k in (4, 5)]
    alone = made.map_array(add, [7], [7])
    assert [job.result() for job in jobs] == [11, 22, 33]
    assert [job.result() for job in batch] == [5, 6]
    assert alone[0].result() == 14, "an array of one is refused by PBS"
    assert alone[0].job_id == "3"
    wait_until(lambda: jobs[2].watcher.get_state("1_2", mode="force") == "COMPLETED")


def test_a_cancelled_job_and_a_killed_one_have_no_result(pbs: Lab) -> None:
    made = executor(pbs)
    ready = [pbs.work / f"ready{k}" for k in (0, 1)]
    cancelled, killed = (made.submit(Counter(str(path))) for path in ready)
    wait_until(lambda: all(path.exists() for path in ready))
    cancelled.cancel()
    for pid in pbs.processes("submitit.core._submit"):
        if b"SUBMITIT_PBS_ID=2\0" in Path(f"/proc/{pid}/environ").read_bytes():
            os.kill(pid, 9)
    with pytest.raises(utils.UncompletedJobError, match="state: CANCELLED"):
        cancelled.result()
    with pytest.raises(utils.UncompletedJobError, match="state: FAILED"):
        killed.result()


def test_a_dependency_waits_and_one_that_fails_is_never_run(pbs: Lab) -> None:
    first = executor(pbs).submit(fail)
    never = executor(pbs, depend=f"afterok:{first.job_id}").submit(add, 1, 1)
    then = executor(pbs, depend=f"afterany:{first.job_id}").submit(add, 2, 2)
    assert then.result() == 4
    with pytest.raises(utils.UncompletedJobError, match="state: CANCELLED"):
        never.result()


def test_a_checkpointed_job_goes_on_in_another_one(pbs: Lab) -> None:
    made = PbsExecutor(pbs.work / "logs")
    made.update_parameters(time=60)
    job = made.submit(Counter(str(pbs.work / "ready")))
    after = executor(pbs, depend=f"afterok:{job.job_id}", after=_after(job)).submit(add, 3, 3)
    wait_until((pbs.work / "ready").exists)
    job._interrupt()
    assert job.result() == 1
    assert len(job.continuation.jobs) == 2
    assert after.result() == 6
    assert len(after.continuation.jobs) == 2, "it found the first one unfinished, and waited again"
    order = [pbs.job(number)["start"] for number in (job.continuation.jobs[1], after.continuation.jobs[1])]
    assert order == sorted(order)


def _after(job: PbsJob[Any]) -> tuple[Any, ...]:
    from jobs.clusters.pbs.script import After

    return (After(f"{job.paths.folder}/{job.job_id}"),)


@PBSPRO
def test_before_the_walltime_a_job_is_checkpointed_and_resubmitted_but_not_for_ever(pbs: Lab) -> None:
    made = PbsExecutor(pbs.work / "logs", max_num_timeout=0)
    made.update_parameters(time=0.2, signal_delay_s=9)
    job = made.submit(Counter(str(pbs.work / "ready")))
    with pytest.raises(utils.UncompletedJobError, match="timed-out too many times"):
        job.result()
    again = PbsExecutor(pbs.work / "logs", max_num_timeout=1)
    again.update_parameters(time=0.2, signal_delay_s=9)
    assert again.submit(Counter(str(pbs.work / "ready2"))).result() == 1


def test_tasks_run_on_every_node_and_know_who_they_are(pbs: Lab) -> None:
    made = executor(pbs, nodes=2, tasks_per_node=2)
    job = made.submit(whoami)
    found = job.results()
    hosts = found[0][7]
    assert len(set(hosts)) == 2
    env = (str(pbs.work), "/opt/venv with space")
    assert found == [("pbs", "1", 4, 2, k // 2, k, k % 2, hosts, str(k // 2), *env) for k in range(4)]
    assert len(job.task(3).stdout().splitlines()) > 0
    wait_until(lambda: pbs.job("1")["state"] in "FC")
    assert pbs.job("1")["exit_status"] == 0


@TORQUE
def test_one_failing_task_fails_the_job(pbs: Lab) -> None:
    def some() -> int:
        if JobEnvironment().global_rank == 1:
            raise ValueError("task 1")
        return 5

    job = executor(pbs, nodes=2, tasks_per_node=1).submit(some)
    assert job.task(0).result() == 5
    with pytest.raises(utils.FailedJobError, match="task 1"):
        job.results()
    assert pbs.wait("1")["exit_status"] == 1, "pbsdsh said 0"


@TORQUE
@pytest.mark.parametrize("folder", ["with space", 'quo\'te "d"', "do$HOME llar", "%j/%j"])
def test_odd_folders_survive(pbs: Lab, folder: str) -> None:
    assert executor(pbs, folder).submit(add, 1, 2).result() == 3
    if "%" not in folder:
        assert [job.result() for job in executor(pbs, folder).map_array(add, [1, 2], [3, 4])] == [4, 6]


@TORQUE
def test_what_cannot_be_asked_for_is_refused_with_what_can(pbs: Lab) -> None:
    with pytest.raises(ValueError, match=r"Unavailable parameter\(s\): \['blublu'\]") as error:
        executor(pbs, blublu=12)
    assert "  - queue (default: '')" in str(error.value)
    with pytest.raises(NameError, match="Unknown argument 'blublu' for executor 'pbs'"):
        submitit.AutoExecutor(pbs.work, cluster="pbs").update_parameters(pbs_blublu=1)


def test_an_answer_of_qsub_may_have_lines_before_it() -> None:
    read = PbsExecutor._get_job_id_from_submission_command
    assert read("2.pbshead\n") == "2"
    assert read(b"Welcome to DevCloud\n2451912.v-qsvr-1.aidevcloud\n") == "2451912"
    assert read("47[].pbshead") == "47"
    with pytest.raises(utils.FailedSubmissionError):
        read("blublu")


def test_without_qsub_there_is_no_executor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert PbsExecutor.affinity() == -1
    with pytest.raises(RuntimeError, match='Could not detect "qsub"'):
        PbsExecutor(tmp_path)
