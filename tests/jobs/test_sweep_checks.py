"""A sweep is checked in every combination before anything is written, and no two of them share a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.planning.sweep import split_sweep
from jobs.submit import main
from segdist.config import ConfigError
from segdist.data.scenes.dataset import main as paint

from .dry import COMMANDS, refusal

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (
            ["lr=0.1,0.10"],
            "error: --sweep: lr=0.1 and lr=0.10 are the same run twice; give each value once",
        ),
        (["lr=0.1,0.1"], "error: --sweep: lr=0.1 and lr=0.1 have one folder, lr=0.1; give values whose names differ"),
        (
            ["data=/a/b,/a-b"],
            "error: --sweep: data=/a/b and data=/a-b have one folder, data=-a-b; give values whose names differ",
        ),
        (
            ["seed=1", f"data=/{'x' * 300},/y"],
            "makes a folder's name of 313 bytes; give shorter values, 255 bytes together",
        ),
        (["lr=0.1,0"], "error: lr=0: --lr 0.0: must be above 0; give for example 0.01"),
        (["batch=8,1", "lr=0.1,0.2"], "error: batch=1,lr=0.1: --batch 1: must be at least the number of ranks, 2"),
        (["crop=64x128,512x1024"], "error: crop=512x1024: --crop 512x1024: is larger than the training images"),
        (
            ["data=@scenes,nowhere"],
            "error: data=nowhere: nowhere/leftImg8bit/train: is no folder; --data must be the Cityscapes root",
        ),
        (["labels=street13,mine.toml"], "error: labels=mine.toml: --labels mine.toml: is neither"),
        (["lr=nan,0.1"], "error: lr=nan: --lr nan: must be above 0"),
        (["weight_decay=0,inf"], "error: weight-decay=inf: --weight-decay inf: must be a finite number"),
        (["run=a,b"], "error: --sweep run=…: every combination has a folder of its own below --run"),
        (["walltime=01:00:00,02:00:00"], "error: --sweep walltime=…: the runs of a sweep are submitted together"),
        (["wait=true,false"], "error: --sweep wait=…: the runs of a sweep are submitted together"),
        (["lr=0.1,,0.2"], "--sweep lr=0.1,,0.2: must be KEY=VALUE,VALUE"),
    ],
)
def test_a_combination_that_cannot_be_is_refused_by_name(
    capsys: pytest.CaptureFixture[str], sweeps: list[str], message: str
) -> None:
    words = [word for sweep in sweeps for word in ("--sweep", sweep)]
    given = [] if any(sweep.startswith("run=") for sweep in sweeps) else ["--run", "s"]
    said = refusal(capsys, "train", "--cluster", "local", *given, "--nodes", "2", *words)
    assert message in said


def test_every_data_set_of_a_sweep_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("small", "64x64"), ("large", "128x128")):
        assert paint(["--out", name, "--train", "1", "--val", "1", "--size", size]) == 0
    capsys.readouterr()
    sweep = ("train", "--run", "s", "--sweep", "data=large,small", "--batch", "8", "--crop", "128x128", "--dry-run")
    assert main(sweep, COMMANDS) == 2
    assert capsys.readouterr().err == (
        "error: data=small: --crop 128x128: is larger than the training images (64x64); give 64x64 or less\n"
    )


def test_runs_of_this_machine_may_differ_in_their_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = ("train", "--run", "s", "--sweep", "nodes=1,2", "--dry-run")
    assert main([*sweep, "--cluster", "local"], COMMANDS) == 0
    assert "--nodes 2 --ranks-per-node 1 train" in capsys.readouterr().out
    assert main([*sweep, "--cluster", "slurm"], COMMANDS) == 2
    assert capsys.readouterr().err == (
        "error: --sweep nodes=…: the runs of a sweep are submitted together, and cannot differ in it; "
        "submit once for each\n"
    )


def test_the_elements_of_an_array_have_the_same_steps(capsys: pytest.CaptureFixture[str]) -> None:
    for name, sizes in (("a", '["64x128"]'), ("b", '["64x128", "96x96"]')):
        Path(f"{name}.toml").write_text(f'run = "s"\n[evaluation]\nsizes = {sizes}\n')
    sweep = ("pipeline", "--sweep", "config=a.toml,b.toml", "--dry-run", "--cluster")
    assert main([*sweep, "slurm"], COMMANDS) == 2
    assert "config=a.toml and config=b.toml have other steps" in capsys.readouterr().err
    assert main([*sweep, "local"], COMMANDS) == 0


def test_a_sweep_may_stand_in_a_config_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text('run = "s"\n[resources]\nsweep = "lr=0.1,0.2"\n')
    assert main(["train", "--config", "run.toml", "--dry-run"], COMMANDS) == 0
    said = capsys.readouterr().out
    assert "sweep:   2 runs in s\n" in said
    assert "run:     s/lr=0.2\n" in said
    assert main(["train", "--config", "run.toml", "--sweep", "seed=1,2,3", "--dry-run"], COMMANDS) == 0
    assert "sweep:   3 runs in s\n" in capsys.readouterr().out
    Path("run.toml").write_text('run = "s"\n[resources]\nsweep = ["lr"]\n')
    assert "--sweep lr: must be KEY=VALUE,VALUE" in refusal(capsys, "train", "--config", "run.toml")


def test_combinations_are_named_before_they_are_parsed() -> None:
    with pytest.raises(ConfigError, match=r"model=a b,seed=1 and model=a-b,seed=1 have one folder, model=a-b,seed=1"):
        split_sweep(["train", "--sweep", "model=a b,a-b", "--sweep", "seed=1"])
