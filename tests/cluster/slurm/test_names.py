"""Run folders with names that a shell or sbatch could read as something else, on a real Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.record.run_json import read_spec

from .conftest import Cluster, until


@pytest.mark.slow
def test_a_job_runs_under_an_odd_name_and_its_output_is_where_the_record_says(cluster: Cluster) -> None:
    names = ("größe", "it's, a b #1", 'a"b&c;$HOME', "lr=0.1,x=2")
    runs = [cluster.submit("train", name, "--epochs", "1") for name in names]
    for run in runs:
        until(lambda run=run: cluster.states(run)["train"] in ("completed", "failed"), 120, f"{run.path.name} ends")
        output = Path(read_spec(run.run_json).jobs[0].output)
        assert cluster.states(run) == {"train": "completed"}
        assert output.is_relative_to(run.path)
        assert "train: completed" in output.read_text()


def test_a_percent_sign_is_refused_before_slurm_expands_it(cluster: Cluster) -> None:
    done = cluster.python("jobs.submit", "train", "--run", str(cluster.folder / "50%aug"), *cluster.data)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --run {cluster.folder}/50%aug: Slurm expands % in the names of its files; give a path without %\n"
    )
    assert list(cluster.folder.iterdir()) == []
