"""A walltime that is shorter than twice the time that training is given to save: the latter is shortened, and said."""

from __future__ import annotations

import pytest

from .dry import COMMANDS, main

SAID = "note: --walltime 00:05:00: training saves 150 s before its end, half of it, and not signal_before_s = {}; "


@pytest.mark.parametrize(
    ("cluster", "profile", "text", "margin"),
    [
        ("slurm", "signal_before_s = 300\n", "#SBATCH --signal=B:USR1@150\n", 300),
        ("pbs", 'signal_before_s = 200\ndialect = "torque"\n', "SEGDIST_SAVE_MARGIN=150\n", 200),
    ],
)
def test_training_saves_at_half_of_a_short_walltime(
    tmp_path, streets, capsys: pytest.CaptureFixture[str], cluster: str, profile: str, text: str, margin: int
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(profile)
    argv = ["train", "--cluster", cluster, "--profile", str(site), "--run", str(tmp_path / "r"), "--dry-run"]
    argv += ["--data", str(streets), "--crop", "64x128", "--batch", "2"]
    assert main([*argv, "--walltime", "00:05:00"], COMMANDS) == 0
    out = capsys.readouterr().out
    assert text in out
    assert SAID.format(margin) in out
    assert main([*argv, "--walltime", "01:00:00"], COMMANDS) == 0
    out = capsys.readouterr().out
    assert text.replace("150", str(margin)) in out
    assert "note: --walltime" not in out
