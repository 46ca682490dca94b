"""What goes on in another job, what fails, and what is refused, on a real OpenPBS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import MEASURED, User
from .server import until

pytestmark = pytest.mark.slow
WALLTIME = ("--walltime", "00:00:40", "--profile", "site.toml")
LONG = ("--epochs", "2000")


def _site(user: User, margin_s: int = 15) -> None:
    user.server.write(user.folder / "site.toml", f"signal_before_s = {margin_s}\n")


def _outputs(run: Path) -> str:
    return "".join(path.read_text() for path in run.rglob("*_log.out"))


def test_every_run_of_a_sweep_past_its_walltime_goes_on_and_its_throttle_holds(user: User) -> None:
    _site(user)
    sweep = ("--sweep", "lr=0.01,0.02", "--max-parallel", "1", "--max-restarts", "1")
    folder = user.submit("train", "sweep", *LONG, *sweep, *WALLTIME)
    jobs: dict[str, set[str]] = {}

    def over() -> bool:
        at_work = [line.split() for line in user.server.output("qstat", "-t").splitlines()[2:]]
        jobs.setdefault("at once", set()).add(" ".join(words[0] for words in at_work if words[4] == "R"))
        return all(row["state"] == "failed" for name in ("lr=0.01", "lr=0.02") for row in user.status(f"sweep/{name}"))

    until(over, 240, lambda: _outputs(folder), every=1)
    assert all(" " not in names for names in jobs["at once"]), jobs
    for name in ("lr=0.01", "lr=0.02"):
        (row,) = user.status(f"sweep/{name}")
        assert "restarted 1 times already" in row["error"], "it was continued once, as often as it may be"
        assert row["restarts"] == 1


def test_the_report_is_there_when_a_step_failed(user: User) -> None:
    server = user.server
    server.output("cp", "-r", "/home/dev/streets", "data", cwd=user.folder)
    server.output("qmgr", "-c", "set server scheduling = False", user="root")
    try:
        run = user.submit("pipeline", "run", "--epochs", "1", *MEASURED, "--data", str(user.folder / "data"))
        server.output("rm", "-r", "data", cwd=user.folder)
    finally:
        server.output("qmgr", "-c", "set server scheduling = True", user="root")
    user.wait_for("run", report="completed")
    states = user.states("run")
    assert states.pop("train") == "failed"
    assert states.pop("report") == "completed"
    assert set(states.values()) == {"skipped"}
    assert (run / "report.html").exists()


def test_a_continuation_while_the_server_is_away_is_tried_again(user: User) -> None:
    _site(user, 20)
    run = user.submit("train", "run", *LONG, "--max-restarts", "1", *WALLTIME)
    user.wait_for("run", train="running")
    user.server.server("stop")
    try:
        until(lambda: "trying again in 4 s" in _outputs(run), 60, lambda: _outputs(run))
    finally:
        user.server.server("start")
    until(lambda: "to be continued by job" in _outputs(run), 60, lambda: _outputs(run))
    until(lambda: user.status("run")[0]["restarts"] == 1, 60, lambda: user.status("run"))
    assert user.python("jobs.cancel", "run").returncode == 0
    assert user.states("run") == {"train": "failed"}


def test_a_node_that_may_not_submit_says_so_in_the_result(user: User) -> None:
    _site(user)
    user.server.output("qmgr", "-c", "set server flatuid = False", user="root")
    try:
        run = user.submit("train", "run", *LONG, *WALLTIME)
        user.wait_for("run", train="failed")
    finally:
        user.server.output("qmgr", "-c", "set server flatuid = True", user="root")
    error = json.loads((run / "train" / "result.json").read_text())["error"]
    assert "cannot be continued by another job (qsub: Bad UID for job execution)" in error
    assert user.status("run")[0]["error"] == error
