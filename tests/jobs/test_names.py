"""Names of run folders work, or are refused at submission in one line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jobs.submit import main

from .conftest import Cluster
from .dry import COMMANDS, refusal

NAMES = ("50% aug", "größe", "a b", "it's", 'a"b', "x,y", "#1", "$HOME", "a;b", "a&b", "*", "a=b", "a:b", "(a)")


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    ("cluster", "run", "message"),
    [
        ("slurm", "runs/50%aug", r"--run \S+/runs/50%aug: Slurm expands % in the names of its files; give a path with"),
        ("slurm", "runs/x%j", r"--run \S+/runs/x%j: Slurm expands %"),
        ("slurm", "100%", r"--run \S+/100%: Slurm expands %"),
        ("slurm", "a\\b", r"--run \S+/a\\b: has a backslash, which the scheduler reads as an escape"),
        ("pbs", "runs/50%aug", r"--run \S+/runs/50%aug: %a stands for a job's number in the names of its files"),
        ("pbs", "a\\b", r"--run \S+/a\\b: has a backslash"),
        ("local", "x%j", r"--run \S+/x%j: %j stands for a job's number"),
        ("local", "a\nb", r"--run 'a\\nb': has a line end or another control character"),
        ("local", "a\rb", r"--run 'a\\rb': has a line end or another control character"),
        ("local", "a\udcffb", r"--run 'a\\udcffb': is not text in UTF-8"),
        ("local", "x" * 256, r"--run …x{60}: has a name of 256 bytes; give at most 255"),
        ("local", "é" * 128, r"has a name of 256 bytes"),
    ],
)
def test_a_name_that_would_be_read_as_something_else_is_refused(
    capsys: pytest.CaptureFixture[str], cluster: str, run: str, message: str
) -> None:
    assert re.search(message, refusal(capsys, "train", "--cluster", cluster, "--run", run, "--dry-run"))


@pytest.mark.usefixtures("empty_folder")
def test_a_name_that_begins_with_a_dash_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("-x", "./-x", "--overwrite"):
        said = refusal(capsys, "train", f"--run={run}", "--dry-run")
        assert said == f"error: --run {run}: begins with a dash; give another name"


@pytest.mark.usefixtures("empty_folder")
def test_the_folder_above_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    above = tmp_path / "50%aug"
    above.mkdir()
    monkeypatch.chdir(above)
    said = refusal(capsys, "train", "--cluster", "slurm", "--run", "r", "--dry-run")
    assert f"--run {above}/r: Slurm expands %" in said


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("empty_folder")
def test_another_name_stands_quoted_in_the_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if "%" not in name:
        assert main(["train", "--cluster", "slurm", "--run", f"runs/{name}", "--dry-run"], COMMANDS) == 0
        said = capsys.readouterr().out
        output = next(line for line in said.splitlines() if line.startswith("#SBATCH --output="))
        (path,) = shlex.split(output.removeprefix("#SBATCH --output="))
        assert path.startswith(f"{tmp_path}/runs/{name}/.submitit/")
    (tmp_path / "site.toml").write_text('dialect = "pbspro"\n')
    options = ["--cluster", "pbs", "--profile", "site.toml", "--dry-run"]
    assert main(["train", "--run", f"runs/{name}", *options], COMMANDS) == 0
    state = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("state="))
    assert f"/runs/{name}/.submitit/" in shlex.split(state)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["50% aug", "größe", "it's a,b"])
def test_a_job_of_this_machine_runs_under_such_a_name(cluster: Cluster, name: str) -> None:
    assert cluster.submit("train", "--run", name, "--wait") == 0
    assert cluster.states(name) == {"train": "completed"}
