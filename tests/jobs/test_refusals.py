"""What jobs.submit refuses, with what was there left as it was."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jobs.record.processes import this_process
from jobs.submit import main
from segdist.run.folder import RunFolder
from segdist.run.lease import acquire
from segdist.run.result import Result

from .conftest import write_run
from .dry import COMMANDS, refusal

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_a_wrong_task_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "trian", "--nodes", "2") == (
        "error: task 'trian': is not known; give one of train, evaluate, quantize, pipeline, tune as the first word"
    )


def test_no_task_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys).startswith("usage: python -m jobs.submit TASK")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("train --nodes 0", "--nodes 0: must be at least 1; give 1 or more"),
        ("evaluate --ranks-per-node -1", "--ranks-per-node -1: must be at least 1; give 1 or more"),
        (
            "train --batch 3 --nodes 2 --ranks-per-node 2",
            "--batch 3: must be at least the number of ranks, 4 (--nodes 2 x --ranks-per-node 2); "
            "give --batch 4 or more, or fewer ranks",
        ),
        (
            "pipeline --batch 1 --nodes 2",
            "--batch 1: must be at least the number of ranks, 2 (--nodes 2 x --ranks-per-node 1); "
            "give --batch 2 or more, or fewer ranks",
        ),
        ("train --crop 512x1024", "--crop 512x1024: is larger than the training images (256x512); give"),
        ("train --labels nowhere.toml", "nowhere.toml"),
        ("train --data nowhere", "--data must be the Cityscapes root"),
        ("train --colour red", "Unrecognized options: --colour"),
        (
            "evaluate",
            'error: --run "": evaluate needs a run with a trained model; give --run RUN, or --weights FILE',
        ),
        (
            "quantize --run nowhere",
            "error: --run nowhere: there is no such run folder; give the run of a training, or --weights FILE",
        ),
        (
            "evaluate --weights nowhere.pt",
            "error: --weights nowhere.pt: is no file; give the path of a model.pt",
        ),
        (
            "train --cluster slurm",
            "error: --cluster slurm: sbatch is not on PATH; submit on a login node of the cluster, "
            "or give --cluster local",
        ),
        (
            "train --cluster pbs",
            "error: --cluster pbs: qsub is not on PATH; submit on a login node of the cluster, or give --cluster local",
        ),
        ("train --walltime 90m", "--walltime 90m: must be HH:MM:SS or D-HH:MM:SS; give for example 06:00:00"),
        ("train --profile nowhere.toml", "nowhere.toml: cannot be read"),
        ("train --sweep lr", "--sweep lr: must be KEY=VALUE,VALUE; give for example --sweep lr=0.01,0.05"),
        ("train --sweep lr=0.1,0.2 --sweep lr=0.3", "--sweep lr=0.3: lr is swept already; give all its values at once"),
        ("train --sweep model=unet,vgg", "invalid choice"),
        ("evaluate --weights x --sweep name=a,b", "--sweep: is for train and pipeline"),
    ],
)
def test_what_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], argv: str, message: str) -> None:
    assert message in refusal(capsys, *argv.split())


def test_a_run_without_a_model_cannot_be_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    Path("r").mkdir()
    assert refusal(capsys, "evaluate", "--run", "r") == (
        "error: --run r: has no train/model.pt; train there first, or give --weights FILE"
    )


def test_a_result_is_not_lost_without_overwrite(capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder("r").step("train").write_result(Result("train", "train", "completed", "2026-01-31T12:00:00Z"))
    assert refusal(capsys, "train", "--run", "r") == (
        "error: r/train/result.json: exists; give another --run, or --overwrite to replace it"
    )
    assert main(["train", "--run", "r", "--overwrite", "--dry-run"], COMMANDS) == 0


def test_a_training_that_failed_goes_on_and_its_rows_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    step = RunFolder("r").step("train")
    step.write_result(Result("train", "train", "failed", "2026-01-31T12:00:00Z"))
    step.checkpoints.mkdir()
    (step.checkpoints / "last.pt").write_bytes(b"")
    step.metrics_jsonl.write_text('{"epoch": 1}\n')
    goes_on = "note: train goes on from its newest checkpoint; --overwrite starts it afresh"
    assert main(["train", "--run", "r", "--dry-run"], COMMANDS) == 0
    assert goes_on in capsys.readouterr().out
    assert main(["train", "--run", "r", "--dry-run", "--overwrite"], COMMANDS) == 0
    assert goes_on not in capsys.readouterr().out
    assert main(["train", "--run", "r", "--wait"], COMMANDS) != 0  # the program behind COMMANDS is none
    assert step.metrics_jsonl.read_text() == '{"epoch": 1}\n'


def test_a_run_that_was_started_by_hand_is_refused_too(capsys: pytest.CaptureFixture[str]) -> None:
    step = RunFolder("r").step("train")
    held = acquire(step, {})
    step.metrics_jsonl.write_text('{"epoch": 1}\n')
    assert main(["train", "--run", "r", "--overwrite"], COMMANDS) == 2
    said = capsys.readouterr().err
    assert "a run by hand (restart 0) on" in said
    assert "is at work on it; wait for it" in said
    assert step.metrics_jsonl.read_text() == '{"epoch": 1}\n'
    held.release()


def test_a_run_at_work_is_refused_with_its_holder(capsys: pytest.CaptureFixture[str]) -> None:
    own = this_process()
    pid, started = own.pid, own.pid_started
    write_run("r", socket.gethostname(), pid, started)
    assert refusal(capsys, "train", "--run", "r", "--overwrite") == (
        f"error: --run r: job 77 (pid {pid} on {socket.gethostname()}) is at work in it; wait for it, "
        "end it with python -m jobs.cancel r, or give another --run"
    )


def test_a_run_of_another_host_is_refused_unless_it_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    write_run("r", "node7.example", 1, "")
    assert refusal(capsys, "train", "--run", "r") == (
        "error: --run r: job 77 (pid 1 on node7.example) may be at work in it; "
        "submit from node7.example, or give another --run"
    )
    RunFolder("r").step("train").write_result(Result("train", "train", "completed", "2026-01-31T12:00:00Z"))
    assert main(["train", "--run", "r", "--overwrite", "--dry-run"], COMMANDS) == 0


def test_a_pid_that_was_given_to_another_process_does_not_hold_a_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = this_process()
    pid, started = own.pid, own.pid_started
    write_run("r", socket.gethostname(), pid, started + "0")
    assert main(["train", "--run", "r", "--dry-run"], COMMANDS) == 0


def test_a_file_is_no_run_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("r").write_text("")
    assert refusal(capsys, "train", "--run", "r") == "error: --run r: is no folder; give another name"


def test_a_run_json_that_is_not_whole_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("r").mkdir()
    Path("r/run.json").write_text('{"schema_version": 1, "st')
    assert "r/run.json: cannot be read as JSON" in refusal(capsys, "train", "--run", "r")
