"""The launcher's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segdist.launch.__main__ import main, split_arguments
from segdist.run.result import read_result
from segdist.system.affinity import physical_cores

from .local_launcher import DEADLINE, ROOT


def test_own_options_come_before_the_task_and_its_options_stay_as_they_are() -> None:
    options, task, rest = split_arguments(["--nodes", "2", "train", "--nodes", "7", "--", "evaluate", "-x"])
    assert (options.nodes, options.ranks_per_node, options.grace) == (2, None, 10.0)
    assert (task, rest) == ("train", ["--nodes", "7", "--", "evaluate", "-x"])


def test_task_options_reach_the_rank_as_they_are(tmp_path: Path, rank_program: list[str]) -> None:
    argv = ["evaluate", "--name", "int8", "--sizes", "64x128", "96x96", "--run", str(tmp_path / "run")]
    assert main(["--nodes", "1", *argv], rank_program) == 0
    result = read_result(tmp_path / "run" / "evaluate" / "int8" / "result.json")
    assert result.metrics == {"argv": argv}
    assert (tmp_path / "run" / "evaluate" / "int8" / "logs" / "rank0.log").read_text() == ""


def test_more_ranks_than_cores_is_a_warning_with_the_counts(
    tmp_path: Path, rank_program: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    cores = len(physical_cores(os.sched_getaffinity(0)))
    argv = ["--ranks-per-node", str(cores + 1), "train", "--run", str(tmp_path / "run")]
    assert main(argv, rank_program) == 0
    assert capfd.readouterr().err == (
        f"segdist.launch: warning: {cores + 1} ranks (1 x {cores + 1}) on {cores} physical cores: "
        "they share cores, so measure no speed here\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [],
            "TASK is missing: give a task (train, evaluate, quantize, tune, export, pipeline); see",
        ),
        (["fly"], "fly: is neither a task (train, evaluate, quantize, tune, export, pipeline) nor an option; see"),
        (
            ["--node", "2", "train"],
            "--node 2: is neither a task (train, evaluate, quantize, tune, export, pipeline) nor an option; see",
        ),
        (["--nodes", "two", "train"], "argument --nodes: invalid int value: 'two'; see"),
        (["--nodes", "0", "train", "--run", "RUN"], "--nodes 0: must be at least 1; give 1 or more"),
        (
            ["--ranks-per-node", "0", "train", "--run", "RUN"],
            "--ranks-per-node 0: must be at least 1; give 1",
        ),
        (
            ["--grace", "-1", "train"],
            "argument --grace: -1: must be seconds, at least 0; give for example 10",
        ),
        (
            ["--grace", "nan", "train"],
            "argument --grace: nan: must be seconds, at least 0; give for example 10",
        ),
        (["train"], '--run "": must name the run folder; add for example --run runs/first'),
        (
            ["train", "--config", "RUN/none.toml"],
            "none.toml: cannot be read (No such file or directory); give",
        ),
        (["train", "--run", "rank.py"], "cannot be made or written (Not a directory); give a --run folder"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2_before_anything_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank_program: list[str],
    capfd: pytest.CaptureFixture[str],
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv, rank_program) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["rank.py"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--crop", "big", "a size is HEIGHTxWIDTH in pixels"), ("--epoch", "3", "--epoch")],
)
def test_bad_task_options_are_refused_before_anything_starts(
    tmp_path: Path,
    rank_program: list[str],
    capfd: pytest.CaptureFixture[str],
    option: str,
    value: str,
    message: str,
) -> None:
    argv = ["train", "--run", str(tmp_path / "run"), option, value]
    try:
        code = main(argv, rank_program)
    except SystemExit as exit_:  # the option parser's own way out
        code = int(exit_.code or 0)
    assert code == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_bad_master_port_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank_program: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MASTER_PORT", "any")
    assert main(["train", "--run", str(tmp_path / "run")], rank_program) == 2
    assert capfd.readouterr().err.startswith("error: MASTER_PORT='any': must be a port")


def test_help_is_for_people_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from segdist.launch.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({'torch', 'numpy', 'PIL', 'submitit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0
    for text in (
        "--nodes N",
        "--ranks-per-node R",
        "--grace SECONDS",
        "TASK",
        "exit code:",
        "example:",
        "[]",
    ):
        assert text in done.stdout
