"""What a launch leaves in the step's folder: result.json and logs, and what it does not touch."""

from __future__ import annotations

from pathlib import Path

import pytest

from segdist.launch.__main__ import main
from segdist.run.folder import StepFolder
from segdist.run.lease import acquire
from segdist.run.result import Result

from .local_launcher import Launcher, last_line


def write_earlier(step: StepFolder, status: str) -> None:
    step.path.mkdir(parents=True)
    step.write_result(Result("train", "train", status, "2026-01-01T00:00:00Z", error="earlier"))  # type: ignore[arg-type]


def test_a_missed_goal_passes_through_with_its_own_result(tmp_path: Path) -> None:
    with Launcher(tmp_path, "if rank == 0: write_result('failed')\nsys.exit(3)") as launcher:
        assert launcher.end()[0] == 3
    assert launcher.step.read_result().error is None  # as rank 0 wrote it


@pytest.mark.parametrize("earlier", [None, "completed"])
def test_ranks_that_all_end_well_without_a_new_result_have_failed(
    tmp_path: Path, step: StepFolder, earlier: str | None
) -> None:
    if earlier:
        write_earlier(step, earlier)
    with Launcher(tmp_path, "") as launcher:
        code, _, err = launcher.end()
    reason = f"every rank ended with exit code 0, but none wrote {step.result_json}"
    assert code == 1
    assert last_line(err) == f"error: {reason}; exit code 1; log: {step.rank_log(0)}"
    assert step.read_result().error == reason


def test_an_earlier_result_and_its_logs_are_replaced_on_request_only(
    tmp_path: Path, step: StepFolder, rank_program: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    write_earlier(step, "completed")
    step.logs.mkdir()
    step.rank_log(0).write_text("earlier")
    argv = ["train", "--run", str(tmp_path / "run")]

    assert main(argv, rank_program) == 2
    assert capfd.readouterr().err == (
        f"error: {step.result_json}: exists; give another --run, or --overwrite to replace it\n"
    )
    assert step.read_result().error == "earlier"
    assert step.rank_log(0).read_text() == "earlier"

    assert main([argv[0], "--overwrite", *argv[1:]], rank_program) == 0
    assert step.read_result().status == "completed"


def test_a_run_at_work_keeps_its_logs(
    tmp_path: Path, step: StepFolder, rank_program: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    held = acquire(step, {"SEGDIST_JOB_ID": "7"})
    step.logs.mkdir()
    step.rank_log(0).write_text("at work")
    assert main(["train", "--run", str(tmp_path / "run"), "--overwrite"], rank_program) == 2
    assert "job 7 of an unnamed cluster (restart 0)" in capfd.readouterr().err
    assert step.rank_log(0).read_text() == "at work"
    held.release()


def test_a_result_of_an_earlier_launch_is_not_taken_for_that_of_ranks_that_failed(
    tmp_path: Path, step: StepFolder
) -> None:
    write_earlier(step, "completed")
    with Launcher(tmp_path, "sys.exit(7)", ranks_per_node=1) as launcher:
        assert launcher.end()[0] == 7
    assert step.read_result().status == "failed"
    assert step.read_result().error == "rank 0 ended with exit code 7"


def test_a_result_that_cannot_be_written_does_not_hide_how_the_ranks_ended(tmp_path: Path) -> None:
    script = "(step / 'result.json').mkdir(exist_ok=True); sys.exit(7)"
    with Launcher(tmp_path, script, ranks_per_node=1) as launcher:
        (launcher.step.path / "result.json").mkdir(exist_ok=True)
        code, _, err = launcher.end()
    assert code == 7
    assert "cannot be written" in err
    assert last_line(err).startswith("error: rank 0 ended with exit code 7;")
