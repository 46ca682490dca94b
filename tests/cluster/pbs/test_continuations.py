"""How a job goes on in another one where the server makes that hard: arrays, refusals, a server that is away."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.record.run_json import read_spec

from .conftest import wait_until
from .login import PBSPRO, Login

pytestmark = pytest.mark.slow


def _profile(login: Login, margin_s: int) -> tuple[str, ...]:
    profile = login.folder / "site.toml"
    profile.write_text(f"signal_before_s = {margin_s}\n")
    return ("--profile", str(profile))


def _output(run: Path, step: int = 0) -> str:
    return Path(read_spec(run / "run.json").jobs[step].output).read_text()


@pytest.mark.parametrize("throttle", [0, 1])
def test_every_run_of_a_sweep_goes_on_after_its_walltime_and_no_more_at_once_than_the_throttle_says(
    login: Login, throttle: int
) -> None:
    if throttle == 0 and login.lab.torque:
        return  # it takes a dependency on an element, as ever
    limit = ("--max-parallel", str(throttle)) if throttle else ()
    options = ("--sweep", "lr=0.01,0.02", *limit, "--walltime", "00:00:30", *_profile(login, 18))
    folder = login.submit("train", *options, how={"train": "save"})
    runs = [folder / "lr=0.01", folder / "lr=0.02"]
    for run in runs:
        login.wait_for(run, train="completed")
        assert login.state(run).steps[0].entry.restarts == 1, _output(run)

    def jobs() -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (login.lab.folder / "jobs").glob("*.json")]

    wait_until(lambda: all("end" in job for job in jobs()))
    alone = sorted((job["start"], job["end"]) for job in jobs() if not job["array"])
    assert len(alone) == 4, "two elements, and a job that continues each"
    if throttle:
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(alone)), alone


def test_the_report_is_there_when_a_step_in_the_middle_failed(login: Login) -> None:
    run = login.submit("pipeline", "--sizes", "64x128", "--nodes", "2", how={"evaluate/fp32": "fail"})
    login.wait_for(run, report="completed")
    states = login.states(run)
    assert (states["train"], states["evaluate/fp32"], states["quantize"]) == ("completed", "failed", "skipped")
    assert (run / "report.html").exists()
    skipped = [step.error or "" for step in login.state(run).steps if step.state == "skipped"]
    assert all(text.count("failed:") == 1 and "skipped:" not in text for text in skipped), skipped


@PBSPRO
def test_a_continuation_that_is_refused_for_a_while_is_tried_again(login: Login) -> None:
    run = login.submit("train", "--walltime", "00:00:24", *_profile(login, 12), how={"train": "save"})
    login.begun(run, ranks=1)
    login.lab.set(down=True)
    wait_until(lambda: "trying again in 2 s" in _output(run))
    login.lab.set(down=False)
    login.wait_for(run, train="completed")
    assert login.state(run).steps[0].entry.restarts == 1


def test_a_continuation_that_is_refused_for_good_is_in_the_result_in_the_words_of_qsub(login: Login) -> None:
    options = ("--walltime", "00:00:30", *_profile(login, 18), "--sizes", "64x128")
    run = login.submit("pipeline", *options, how={"train": "save"})
    login.begun(run, ranks=1)
    login.lab.set(refuse=[177, "qsub: Bad UID for job execution"])
    login.wait_for(run, train="failed", report="completed")
    (train, *others) = login.state(run).own_steps
    assert json.loads((run / "train" / "result.json").read_text())["error"] == train.error
    said = "cannot be continued by another job (qsub: Bad UID for job execution); submit the run again"
    assert said in (train.error or "")
    for step in others[:-1]:
        assert (step.error or "").count("Bad UID") == 1, step.error
