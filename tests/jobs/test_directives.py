"""The top of a job script: by what it was made, and the directive lines that a site adds and removes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.clusters.directives import finish_script
from jobs.submit import main
from segdist import __version__
from segdist.config import ConfigError

SCRIPT = "#!/bin/bash\n\n# Parameters\n#SBATCH --nodes=2\n#SBATCH --open-mode=append\n#SBATCH --requeue\n\nexec true\n"
MADE_BY = ("python", "-m", "jobs.submit", "train", "--run", "a b")


def test_the_command_stands_under_the_first_line() -> None:
    assert finish_script(SCRIPT, "#SBATCH", MADE_BY).splitlines()[:4] == [
        "#!/bin/bash",
        f"# Made by segdist {__version__}:",
        "#   python -m jobs.submit train --run 'a b'",
        "",
    ]


def test_a_command_of_several_lines_stays_a_comment() -> None:
    text = finish_script(SCRIPT, "#SBATCH", ("python", "x\nrm -rf /"))
    assert "\nrm" not in text


def test_lines_are_added_behind_the_last_and_removed_by_their_beginning() -> None:
    text = finish_script(
        SCRIPT, "#SBATCH", (), add=["--comment=road", "#SBATCH --exclusive=user"], remove=["--open-mode"]
    )
    assert [line for line in text.splitlines() if line.startswith("#SBATCH")] == [
        "#SBATCH --nodes=2", "#SBATCH --requeue", "#SBATCH --comment=road", "#SBATCH --exclusive=user",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["--node", "--open", "requeue", "", "--nodes=3"])
def test_a_removal_that_matches_no_line_is_refused_with_those_that_there_are(word: str) -> None:
    with pytest.raises(
        ConfigError, match=r"no directive begins so; there are --nodes=2, --open-mode=append, --requeue"
    ):
        finish_script(SCRIPT, "#SBATCH", (), remove=[word])


@pytest.mark.parametrize("word", ["", "  ", "--a\nrm -rf /"])
def test_what_is_added_is_one_line(word: str) -> None:
    with pytest.raises(ConfigError, match="add_directives: .*must be one line of text"):
        finish_script(SCRIPT, "#SBATCH", (), add=[word])


@pytest.mark.parametrize(
    ("cluster", "add", "remove", "prefix"),
    [("slurm", "--comment=road", "--open-mode", "#SBATCH"), ("pbs", "-m n", "-l place", "#PBS")],
)
def test_a_profile_adds_and_removes_lines(
    cluster: str, add: str, remove: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    argv = ["train", "--cluster", cluster, "--run", "r", "--dry-run", "--profile", "site.toml"]
    site = tmp_path / "site.toml"
    site.write_text('dialect = "pbspro"\n')
    assert main(argv) == 0
    before = [line for line in capsys.readouterr().out.splitlines() if line.startswith(prefix)]
    site.write_text(f'dialect = "pbspro"\nadd_directives = ["{add}"]\nremove_directives = ["{remove}"]\n')
    assert main(argv) == 0
    after = [line for line in capsys.readouterr().out.splitlines() if line.startswith(prefix)]
    kept = [line for line in before if not line.startswith(f"{prefix} {remove}")]
    assert len(kept) == len(before) - 1
    stamp = [line.partition(".submitit")[0] for line in [*kept, f"{prefix} {add}"]]
    assert [line.partition(".submitit")[0] for line in after] == stamp
    site.write_text('dialect = "pbspro"\nremove_directives = ["--nothing"]\n')
    assert main(argv) == 2
    assert 'remove_directives: "--nothing": no directive begins so' in capsys.readouterr().err
