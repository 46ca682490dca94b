"""A site profile says what it means, or is refused by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.planning.resources import read_profile, walltime_seconds
from jobs.submit import main
from segdist.config import ConfigError

from .dry import COMMANDS, refusal


def write(folder: Path, text: str) -> str:
    """A profile's file with this text."""
    file = folder / "site.toml"
    file.write_text(text)
    return str(file)


def test_one_text_where_a_list_may_stand_is_a_list_of_one(tmp_path: Path) -> None:
    text = (
        'options = "exclusive"\nsetup = "module load gcc"\nadd_directives = "--comment=x"\nremove_directives = "-o"\n'
    )
    profile = read_profile(write(tmp_path, text))
    assert (profile.options, profile.setup) == (("exclusive",), ("module load gcc",))
    assert (profile.add_directives, profile.remove_directives) == (("--comment=x",), ("-o",))


def test_such_a_text_stands_whole_in_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 'options = "exclusive"\nsetup = "module load gcc"\n')
    options = ["--cluster", "slurm", "--profile", "site.toml", "--run", "x", "--dry-run"]
    assert main(["train", *options], COMMANDS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "#SBATCH --exclusive" in lines
    assert "module load gcc" in lines
    assert "m" not in lines


def test_several_lines_of_a_shell_may_stand_in_one_text(tmp_path: Path) -> None:
    assert read_profile(write(tmp_path, 'setup = """\nmodule purge\nmodule load gcc"""\n')).setup == (
        "module purge\nmodule load gcc",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("walltime = 06:00:00", 'is a date or time, and must be a text; write for example walltime = "06:00:00"'),
        ("walltime = 6", 'walltime = 6 at the top level: is a whole number, and must be a text'),
        ('walltime = "30:00"', "--walltime 30:00: may mean minutes or hours; write 00:30:00 or 30:00:00"),
        ('walltime = "1-06:00"', "--walltime 1-06:00: must be HH:MM:SS or D-HH:MM:SS; write 1-06:00:00"),
        ('cores_per_node = "28"', "is a text, and must be a whole number; write for example cores_per_node = 28"),
        ("cores_per_node = -1", "cores_per_node = -1: must be at least 0"),
        ("ranks_per_node = 0", "ranks_per_node = 0: must be at least 1"),
        ("ranks_per_node = true", "ranks_per_node = true at the top level: is true or false"),
        ("max_restarts = -1", "max_restarts = -1: must be at least 0"),
        ("max_restarts = 2.5", "is a number with a fraction, and must be a whole number"),
        ("umask = 22", 'umask = 22 at the top level: is a whole number, and must be a text; write for'),
        ("queue = 5", 'write for example queue = "5"'),
        ("[queue]\na = 1", 'queue = {"a": 1} at the top level: is a table, and must be a text'),
        ("options = [1]", "options = [1] at the top level: holds a whole number, and must be a list, each of"),
        ("[setup]\na = 1", "is a table, and must be a list, each of it a text"),
        ('starter = ["pbsdsh", "ssh"]', 'starter = ["pbsdsh", "ssh"] at the top level: is a list, and must be a text'),
        ('starter = "pbsdsh, ssh"', "--starter pbsdsh, ssh: is not known; give auto, or one or several of local,"),
        ('dialect = "pbs"', 'must be one of "auto", "pbspro", "torque"'),
        ('queue = "a\\nb"', "--queue 'a\\nb': has a line end or another control character"),
        ('partition = "b"', "unknown key 'partition' at the top level; known here: queue, account"),
    ],
)  # fmt: skip
def test_what_a_profile_cannot_say_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, text)
    assert main(["train", "--profile", file, "--run", "x", "--dry-run"], COMMANDS) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {file}: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("empty_folder")
def test_a_starter_that_is_none_is_refused_before_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--starter pbsdhs: is not known; give auto" in refusal(capsys, "train", "--starter", "pbsdhs")


@pytest.mark.usefixtures("empty_folder")
def test_a_profile_below_the_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "ranks_per_node = 2\n")
    assert main(["train", "--profile=~/site.toml", "--run=~/r", "--dry-run"], COMMANDS) == 0
    said = capsys.readouterr().out
    assert f"run:     {tmp_path}/r\n" in said
    assert "2 ranks" in said


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("90", "may mean minutes (Slurm) or seconds (PBS); write 01:30:00 or 00:01:30"),
        ("30:00", "may mean minutes or hours; write 00:30:00 or 30:00:00"),
        ("100:30", "may mean minutes or hours; write 01:40:30 or 100:30:00"),
        ("30:90", "must be HH:MM:SS or D-HH:MM:SS; give for example 06:00:00"),
        ("1-06", "must be HH:MM:SS or D-HH:MM:SS; write 1-06:00:00"),
        ("1-06:00", "must be HH:MM:SS or D-HH:MM:SS; write 1-06:00:00"),
        ("9" * 5000 + ":00:00", "must be HH:MM:SS"),
        ("٠٦:00:00", "must be HH:MM:SS"),
    ],
)
def test_a_walltime_of_another_form_is_refused_with_what_it_may_mean(text: str, advice: str) -> None:
    with pytest.raises(ConfigError) as refused:
        walltime_seconds(text)
    assert str(refused.value).startswith(f"--walltime {text}: {advice}")
