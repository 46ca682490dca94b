"""jobs.submit, status, logs and cancel on both replayed dialects, with the real launcher and ranks without tensors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import cancel, logs, status
from jobs.clusters.pbs.cluster import Pbs
from jobs.record.run_json import Job, PlannedRun, Step, read_spec
from jobs.state.poll import Queue
from jobs.state.read import read_run
from jobs.submit import main
from segdist.run.folder import RunFolder

from .conftest import wait_until
from .login import COMMANDS, PBSPRO, TORQUE, Login


def test_ranks_run_on_both_nodes_with_environment_folder_and_umask(
    login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    run = login.submit("train", "--nodes", "2", "--ranks-per-node", "2")
    login.wait_for(run, train="completed")
    assert login.lab.wait("1")["exit_status"] == 0
    ranks = login.ranks(run)
    hosts = [node["name"] for node in login.lab.job("1")["nodes"]]
    assert [one["rank"] for one in ranks] == [0, 1, 2, 3]
    assert [one["node"] for one in ranks] == ["0", "0", "1", "1"]
    assert {one["master"] for one in ranks} == {hosts[0]}
    assert {(one["venv"], one["cwd"]) for one in ranks} == {("/opt/the venv", str(login.folder))}
    mode = (run / "train" / "result.json").stat().st_mode & 0o777
    assert mode == 0o644, "jobs start with umask 077"
    assert (run / "train" / "logs").stat().st_mode & 0o777 == 0o755
    assert json.loads((run / "train" / "result.json").read_text())["job"]["id"] == "1"
    capsys.readouterr()
    assert status.main([str(run)]) == 0
    assert "completed" in capsys.readouterr().out
    assert logs.main([str(run), "--step", "train", "--rank", "3"]) == 0
    assert '"rank": 3' in capsys.readouterr().out


def test_one_bad_rank_fails_its_step_and_stops_those_behind_it(login: Login) -> None:
    run = login.submit("pipeline", "--nodes", "2", "--sizes", "64x128", how={"train": "fail"})
    login.wait_for(run, report="completed")
    assert login.states(run) == {
        "train": "failed", "evaluate/fp32": "skipped", "quantize": "skipped", "evaluate/int8": "skipped",
        "report": "completed",
    }  # fmt: skip
    assert login.state(run).exit_code == 7
    assert "label 77" in (login.state(run).steps[0].error or "")
    assert login.lab.job("1")["exit_status"] == 7, "pbsdsh says 0, and pbs_tmrsh the agent's"


def test_a_step_that_saved_before_its_walltime_goes_on_in_another_job_and_those_behind_it_wait(login: Login) -> None:
    profile = login.folder / "site.toml"
    profile.write_text("signal_before_s = 36\n")
    options = ("--walltime", "00:00:40", "--profile", str(profile), "--nodes", "2", "--sizes", "64x128")
    run = login.submit("pipeline", *options, how={"train": "save"})
    login.begun(run)
    login.begun(run, restart=1)
    # "running" for the moment in which its job finds the training unfinished
    assert login.states(run)["evaluate/fp32"] in ("waiting", "running")
    login.wait_for(run, report="completed")
    assert set(login.states(run).values()) == {"completed"}
    folder = run / read_spec(run / "run.json").jobs[0].submitit_folder
    train = (folder / "1_jobs").read_text().split()
    assert len(train) == 2, "the run folder says which job continued which"
    evaluate = (folder / "2_jobs").read_text().split()
    assert len(evaluate) == 2, "it found the training unfinished, and waited again"
    assert login.lab.job(evaluate[1])["start"] > login.lab.job(train[1])["end"]
    assert login.state(run).steps[0].entry.restarts == 1
    assert json.loads((run / "train" / "result.json").read_text())["job"]["restart"] == "1"


@PBSPRO
def test_restarts_are_bounded(login: Login) -> None:
    profile = login.folder / "site.toml"
    profile.write_text("signal_before_s = 36\n")
    options = ("--walltime", "00:00:40", "--profile", str(profile), "--max-restarts", "0")
    run = login.submit("train", *options, how={"train": "save"})
    login.wait_for(run, train="failed")
    assert "restarted 0 times already" in (login.state(run).steps[0].error or "")
    assert not (login.lab.folder / "jobs" / "2.json").exists()


@pytest.mark.parametrize("starter", ["auto", "ssh"])
def test_cancel_leaves_no_process_and_says_so(login: Login, starter: str) -> None:
    # What ssh has started is in no job, and outlives it: its agents see the connection close.
    options = ("--nodes", "2", "--sizes", "64x128", "--starter", starter)
    run = login.submit("pipeline", *options, how={"train": "hang"})
    login.begun(run)
    ranks = login.ranks(run)
    assert cancel.main([str(run)]) == 0
    wait_until(lambda: not any(_alive(one["pid"]) for one in ranks))
    states = login.states(run)
    assert states.pop("train") == "failed"
    assert set(states.values()) == {"skipped"}
    assert "cancelled by" in (login.state(run).steps[0].error or "")


def test_a_cancelled_pipeline_starts_nothing_where_a_held_job_that_is_deleted_runs(login: Login) -> None:
    login.lab.set(runs_deleted=True)
    run = login.submit("pipeline", "--sizes", "64x128", how={"train": "hang"})
    login.begun(run, ranks=1)
    jobs = set((login.lab.folder / "jobs").glob("*.json"))
    assert cancel.main([str(run)]) == 0
    states = login.states(run)
    assert states.pop("train") == "failed"
    assert set(states.values()) == {"skipped"}
    assert set((login.lab.folder / "jobs").glob("*.json")) == jobs, "nothing was submitted after the cancel"
    assert not list(run.glob("quantize/logs/begun*"))
    assert not list(run.glob("evaluate/*/logs/begun*"))
    assert not (run / "report.html").exists()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_server_that_is_down_is_unknown_and_never_failed(login: Login) -> None:
    run = login.submit("train", "--nodes", "2", how={"train": "hang"})
    login.begun(run)
    output = Path(read_spec(run / "run.json").jobs[0].output)
    assert "train: " in output.read_text(), "the job's output is there while it runs"
    login.lab.set(down=True)
    (step,) = login.state(run).steps
    assert step.state == "unknown"
    assert "cannot connect" in (step.error or "")
    login.lab.set(down=False)
    assert login.states(run) == {"train": "running"}


def test_a_job_that_has_left_the_history_is_decided_by_what_it_left(login: Login) -> None:
    run = login.submit("train")
    login.wait_for(run, train="completed")
    for file in (login.lab.folder / "jobs").iterdir():
        file.unlink()
    assert login.states(run) == {"train": "completed"}
    (run / "train" / "result.json").unlink()
    assert login.states(run) == {"train": "failed"}


@TORQUE
def test_a_sweep_is_an_array_of_which_each_run_goes_its_own_way(login: Login) -> None:
    options = ("--sweep", "lr=0.01,0.02", "--max-parallel", "1", "--sizes", "64x128")
    folder = login.submit("pipeline", *options)
    runs = [folder / "lr=0.01", folder / "lr=0.02"]
    for run in runs:
        login.wait_for(run, report="completed")
        assert set(login.states(run).values()) == {"completed"}
    assert [read_spec(run / "run.json").jobs[0].id for run in runs] == ["1_0", "1_1"]
    assert login.lab.job("1[]")["array"]["throttle"] == 1


@TORQUE
def test_what_the_server_refuses_is_said_and_nothing_stays_in_the_queue(
    login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    login.lab.set(nodes={name: [] for name in login.lab.nodes})
    argv = ["train", "--cluster", "pbs", "--run", "runs/two", "--constraint", "nosuch"]
    assert main(argv, COMMANDS) == 1
    assert "PBS did not take the job: qsub:" in capsys.readouterr().err


def test_the_dry_run_prints_scripts_and_the_commands_that_submit_them(
    login: Login, capsys: pytest.CaptureFixture[str]
) -> None:
    login.submit("pipeline", "--nodes", "4", "--constraint", "gold6128", "--walltime", "06:00:00", "--dry-run")
    out = capsys.readouterr().out
    asked = "nodes=4:gold6128:ppn=1" if login.lab.torque else "select=4:ncpus=1:mpiprocs=1:gold6128=True"
    assert f"#PBS -l {asked}" in out
    assert "# submitted by: qsub -W depend=afterok:ID_OF_train SCRIPT" in out
    assert not (login.folder / "runs").exists()
    assert not os.listdir(login.lab.folder / "jobs")  # noqa: PTH208


@TORQUE
def test_only_one_call_to_qstat_is_made_for_all_jobs(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    run = login.submit("pipeline", "--sizes", "64x128", how={"train": "hang"})
    calls: list[Any] = []
    from jobs.clusters.pbs import qstat

    real: Callable[..., Any] = qstat.call
    monkeypatch.setattr("jobs.clusters.pbs.continuation.query", lambda *a: calls.append(a) or qstat.query(*a[:2], real))
    read_run(run, queue=Queue())
    assert len(calls) == 1


@PBSPRO
def test_a_server_that_keeps_no_history_is_asked_for_what_runs(login: Login) -> None:
    login.lab.set(history=False)
    run = login.submit("train", how={"train": "hang"})
    login.begun(run, ranks=1)
    assert login.states(run) == {"train": "running"}


@PBSPRO
def test_a_job_that_loses_its_node_begins_again_on_another_and_knows_it(login: Login) -> None:
    login.lab.set(node_fail_requeue=1.0)
    run = login.submit("train", how={"train": "save"})
    login.begun(run, ranks=1)
    (node,) = login.lab.job("1")["nodes"]
    (login.lab.folder / f"crash.{node['name']}").touch()
    login.wait_for(run, train="completed")
    assert login.state(run).steps[0].entry.restarts == 1
    assert json.loads((run / "train" / "result.json").read_text())["job"] == {
        "cluster": "pbs", "id": "1", "restart": "1",
    }  # fmt: skip


@PBSPRO
def test_a_job_killed_at_its_walltime_says_so(login: Login) -> None:
    login.lab.set(kill_delay=0.5)
    profile = login.folder / "site.toml"
    profile.write_text("signal_before_s = 0\n")
    options = ("--walltime", "00:00:04", "--profile", str(profile), "--nodes", "2")
    run = login.submit("train", *options, how={"train": "deaf"})
    login.wait_for(run, train="failed")
    assert "ended as TIMEOUT (walltime exceeded" in (login.state(run).steps[0].error or "")


@TORQUE
def test_jobs_that_torque_would_hold_for_ever_are_dropped(login: Login) -> None:
    # The first job has failed before those behind it are submitted.
    jobs, steps = [], []
    for step, number in (("train", "1"), ("quantize", "2"), ("evaluate/int8", "3")):
        after = () if not steps else (steps[-1].step,)
        steps.append(Step(step, step, step, 1, 1, (), after))
        jobs.append(Job("pbs", number, "head", (step,), ".submitit", str(login.folder / f"{number}_0_log.out")))
        options = ["-W", f"depend=afterok:{int(number) - 1}"] if after else []
        assert login.lab.qsub("exit 1", *options) == number
        login.lab.wait(number, "C" if number == "1" else "H")
    (login.folder / "1_exit").write_text("1\n")
    planned = PlannedRun(RunFolder(login.folder), tuple(steps), ".submitit", "/")
    Pbs("torque").tidy([planned], [tuple(jobs)])
    assert [login.lab.job(number)["state"] for number in ("2", "3")] == ["C", "C"]
