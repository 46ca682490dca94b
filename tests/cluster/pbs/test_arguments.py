"""Options of scripts that are submitted by hand: what qsub makes of them is split as meant, or refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.clusters.pbs.arguments import split_args
from jobs.clusters.pbs.qsub_entry import main
from jobs.clusters.pbs.resources import clock_seconds
from segdist.config import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--run a --data /x", ["--run", "a", "--data", "/x"]),
        ("--data '/a b' --x", ["--data", "/a b", "--x"]),
        ('--data "/a,b"', ["--data", "/a,b"]),
        ("--data /größe/* --run x%j", ["--data", "/größe/*", "--run", "x%j"]),
        ("  ", []),
        ("", []),
    ],
)
def test_the_text_is_split_as_a_shell_would_but_for_its_patterns(text: str, words: list[str]) -> None:
    assert split_args(["train", f"--args={text}", "--more"]) == ["train", *words, "--more"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r"--data \/a b\ ", r"ARGS=--data \/a b\ : has a backslash, which qsub makes of quotes; put such a value into"),
        ('"--data /a', 'ARGS="--data /a: ends within a quotation, as where qsub cuts it at a comma; put such a value'),
    ],
)
def test_what_qsub_has_mangled_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert main(["train.pbs", "train", f"--args={text}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("script", sorted((ROOT / "pbs").rglob("*.pbs")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_scripts_pass_their_options_on_whole(script: Path, tmp_path: Path) -> None:
    show = tmp_path / "python"
    show.write_text(f'#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[sys.argv.index("-m") + 3 :]))\n')
    show.chmod(0o755)
    (tmp_path / "a.txt").touch()
    environment = {"PBS_O_WORKDIR": str(tmp_path), "PYTHON": str(show), "ARGS": "--data '/a b' *"}
    done = subprocess.run(["/bin/bash", script, "--run", "c d"], env=environment, capture_output=True, check=True)
    words = split_args(eval(done.stdout))
    assert words[-5:] == ["--data", "/a b", "*", "--run", "c d"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("06:00:00", 21600), ("30:00", 1800), ("90", 90), ("100:00:00", 360000), ("00:00:30.00", 30)],
)
def test_times_are_read_as_pbs_means_them(text: str, seconds: int) -> None:
    assert clock_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "6h", "1-00:00:00", "1:2:3:4"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="PBS has times as HH:MM:SS, MM:SS or SS"):
        clock_seconds(text)
