"""What jobs.submit prints and refuses; nothing here starts a job."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.clusters import choose_cluster
from jobs.submit import main
from segdist.config import ConfigError, TrainConfig

from .dry import COMMANDS, refusal

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_help_names_every_task_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], COMMANDS) == 0
    text = capsys.readouterr().out
    for task in ("train", "evaluate", "quantize", "pipeline"):
        assert re.search(rf"^  {task} +\w.{{30,}}$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 110


def test_help_of_a_task_has_the_resources_under_their_own_heading(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"], COMMANDS)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    options = text[text.index("resources options") :]
    for option in (
        "--cluster {auto,local,slurm,pbs}",
        "--nodes INT",
        "--ranks-per-node {None}|INT",
        "--wait",
        "--dry-run",
    ):
        assert option in options
    assert "(default: 1)" in options


def test_neither_torch_nor_numpy_nor_submitit_is_loaded_to_parse_check_and_print() -> None:
    code = (
        "import sys, jobs.submit, jobs.status, jobs.logs, jobs.cancel, jobs.collect\n"
        "assert jobs.submit.main(['pipeline', '--cluster', 'local', '--dry-run']) == 0\n"
        "print('loaded:', sorted({'torch', 'numpy', 'submitit', 'PIL', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


# --- the dry run --------------------------------------------------------------------------------------------

DRY_RUN = """\
cluster: local (neither sbatch nor qsub is on PATH)
run:     runs/first
steps:   train
  train (2 nodes x 2 ranks)
    launch --nodes 2 --ranks-per-node 2 train --config runs/first/train/config.json

train/config.json
{
  "run": "runs/first",
  "overwrite": false,
  "dataset": {"data": "@scenes", "labels": "street13", "check": "full", "workers": 2},
  "net": {"model": "unet", "width": 32, "init": null},
  "training": {TRAINING},
  "runtime": {RUNTIME}
}

dry run: nothing was written or started
"""


def test_the_dry_run_prints_all_of_it_and_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "train",
        "--run",
        "runs/first",
        "--width",
        "32",
        "--nodes",
        "2",
        "--ranks-per-node",
        "2",
        "--dry-run",
    ]
    assert main(argv, COMMANDS) == 0
    plain = dataclasses.asdict(TrainConfig())
    expected = DRY_RUN.replace("{TRAINING}", json.dumps(plain["training"]))
    assert capsys.readouterr().out == expected.replace("{RUNTIME}", json.dumps(plain["runtime"]))
    assert list(Path().iterdir()) == []


def test_a_pipeline_has_five_steps_and_quantizes_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "--run", "r", "--nodes", "4", "--dry-run"], COMMANDS) == 0
    text = capsys.readouterr().out
    assert "steps:   train → evaluate fp32 → quantize → evaluate int8 → report\n" in text
    assert "  quantize (1 node x 1 rank, always in one process)\n" in text
    commands = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert commands == [
        "launch --nodes 4 --ranks-per-node 1 train --config r/train/config.json",
        "launch --nodes 4 --ranks-per-node 1 evaluate --config r/evaluate/fp32/config.json",
        "launch --nodes 1 --ranks-per-node 1 quantize --config r/quantize/config.json",
        "launch --nodes 4 --ranks-per-node 1 evaluate --config r/evaluate/int8/config.json",
        "report r --format html --out r/report.html",
    ]
    assert '"weights": "r/quantize/model_int8.torchscript"' in text


def test_a_config_file_has_a_table_of_resources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("job.toml").write_text("[resources]\nnodes = 3\nranks_per_node = 2\n[training]\nepochs = 7\n")
    argv = ["train", "--config", "job.toml", "--ranks-per-node", "1", "--dry-run", "--run", "r"]
    assert main(argv, COMMANDS) == 0
    text = capsys.readouterr().out
    assert "train (3 nodes x 1 rank)" in text
    assert '"epochs": 7' in text


def test_an_unknown_key_of_the_file_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("job.toml").write_text("[resources]\nnode = 3\n")
    assert refusal(capsys, "train", "--config", "job.toml") == (
        "error: job.toml: unknown key 'node' in [resources]; known here: cluster, profile, nodes, "
        "ranks_per_node, cores_per_node, queue, account, constraint, walltime, max_restarts, starter, options, sweep, "
        "max_parallel, wait, dry_run"
    )


def test_a_run_has_a_name_of_its_own_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model", "hrnetv2_w18", "--dry-run"], COMMANDS) == 0
    assert re.search(r"^run:     runs/hrnetv2_w18-\d{8}-\d{6}$", capsys.readouterr().out, re.MULTILINE)


# --- which cluster ------------------------------------------------------------------------------------------


def test_auto_takes_the_scheduler_that_it_finds() -> None:
    def which(command: str) -> str | None:
        return command if command == "sbatch" else None

    assert choose_cluster("auto", which) == ("slurm", "sbatch is on PATH")
    assert choose_cluster("slurm", which) == ("slurm", "asked for")
    assert choose_cluster("local", which) == ("local", "asked for")


def test_a_dry_run_needs_no_scheduler() -> None:
    assert choose_cluster("slurm", lambda command: None, dry_run=True) == ("slurm", "asked for")
    with pytest.raises(ConfigError, match="sbatch is not on PATH"):
        choose_cluster("slurm", lambda command: None)


def test_auto_elsewhere_is_this_machine() -> None:
    assert choose_cluster("auto", lambda command: None) == ("local", "neither sbatch nor qsub is on PATH")
