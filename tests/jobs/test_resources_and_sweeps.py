"""What is asked of a cluster: the site's profile, the options over it, and the combinations of a sweep."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.cancel import main as cancel
from jobs.planning.resources import Profile, Resources, read_profile, resolve, walltime_minutes
from jobs.planning.sweep import split_sweep
from jobs.submit import main
from segdist import __version__
from segdist.config import ConfigError

from .conftest import COMMANDS, Cluster, wait_until

ROOT = Path(__file__).parents[2]


def test_options_override_the_profile_and_the_profile_the_defaults() -> None:
    profile = Profile(queue="batch", ranks_per_node=2, walltime="12:00:00", options=("exclusive",), cores_per_node=56)
    found = resolve(Resources(nodes=4, queue="short", options=("qos=high",)), profile)
    assert (found.queue, found.ranks_per_node, found.walltime, found.cores_per_node) == ("short", 2, "12:00:00", 56)
    assert found.options == ("exclusive", "qos=high")
    assert found.ranks == 8
    assert resolve(Resources(), Profile()).ranks == 1


def test_the_profile_that_is_shipped_can_be_read() -> None:
    profile = read_profile(str(ROOT / "slurm" / "xeon.toml"))
    assert (profile.ranks_per_node, profile.signal_before_s) == (2, 120)


def test_an_unknown_key_of_a_profile_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('partition = "batch"\n')
    with pytest.raises(ConfigError, match=r"unknown key 'partition' at the top level; known here: queue, account"):
        read_profile(str(file))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("00:30:00", 30), ("06:00:00", 360), ("1-00:00:00", 1440), ("00:00:30", 1), ("100:00:00", 6000)],
)
def test_walltimes_are_whole_minutes_rounded_up(text: str, minutes: int) -> None:
    assert walltime_minutes(text) == minutes


@pytest.mark.parametrize("text", ["90", "00:00:00", "1:2", "6h", "-1:00:00", "30:00", "1-06:00"])
def test_a_walltime_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--walltime {text}: "):
        walltime_minutes(text)


def test_a_walltime_of_two_fields_is_refused_with_both_that_it_may_mean() -> None:
    with pytest.raises(ConfigError, match="--walltime 30:00: .* write 00:30:00 or 30:00:00"):
        Profile(walltime="30:00")


def test_a_sweep_is_every_combination_in_order() -> None:
    argv = ["train", "--sweep", "model=unet,hrnetv2_w18", "--epochs", "3", "--sweep=flip=true,false"]
    rest, elements = split_sweep(argv)
    assert rest == ["train", "--epochs", "3"]
    assert [(element.name, element.argv) for element in elements] == [
        ("model=unet,flip=true", ("--model", "unet", "--flip")),
        ("model=unet,flip=false", ("--model", "unet", "--no-flip")),
        ("model=hrnetv2_w18,flip=true", ("--model", "hrnetv2_w18", "--flip")),
        ("model=hrnetv2_w18,flip=false", ("--model", "hrnetv2_w18", "--no-flip")),
    ]
    assert split_sweep(["train", "--lr", "1"]) == (["train", "--lr", "1"], [])


def test_names_of_a_sweeps_runs_are_safe_file_names() -> None:
    (element,) = split_sweep(["train", "--sweep", "data=/data/a b"])[1]
    assert element.name == "data=-data-a-b"
    assert element.argv == ("--data", "/data/a b")


def test_a_sweep_of_far_too_many_is_refused() -> None:
    many = ",".join(map(str, range(40)))
    with pytest.raises(ConfigError, match="--sweep: makes 1600 runs; give at most 1000"):
        split_sweep(["train", "--sweep", f"lr={many}", "--sweep", f"seed={many}"])


@pytest.mark.slow
def test_a_local_sweep_keeps_to_its_limit_and_every_run_is_there(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("--sweep", "lr=0.1,0.2,0.3", "--max-parallel", "2")
    assert cluster.submit("train", "--run", "s", *sweep, "--wait") == 0
    assert "sweep:   3 runs in s\n" in capsys.readouterr().out
    assert [cluster.states(f"s/lr={lr}") for lr in ("0.1", "0.2", "0.3")] == [{"train": "completed"}] * 3
    assert sorted(path.name for path in Path("s").glob(".slot*")) == [".slot0", ".slot1"]


@pytest.mark.slow
def test_a_run_of_a_sweep_waits_for_its_slot_and_can_be_cancelled_there(cluster: Cluster) -> None:
    assert cluster.submit("train", "--run", "s", "--sweep", "lr=0.1,0.2", stand_in="train=hang") == 0
    first, second = "s/lr=0.1", "s/lr=0.2"
    wait_until(lambda: "running" in (cluster.states(first)["train"], cluster.states(second)["train"]))
    waiting = second if cluster.states(first)["train"] == "running" else first
    assert cluster.states(waiting) == {"train": "waiting"}
    assert cancel([waiting]) == 0
    assert cluster.states(waiting) == {"train": "failed"}
    assert cancel([first if waiting == second else second]) == 0


def test_a_dry_run_for_slurm_prints_the_exact_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text(
        'account = "vision"\ncores_per_node = 56\nranks_per_node = 2\noptions = ["exclusive"]\n'
        'setup = ["source /opt/oneapi/setvars.sh"]\npython = "/shared/venv/bin/python"\n'
    )
    argv = ["pipeline", "--cluster", "slurm", "--profile", "site.toml", "--run", "r", "--nodes", "4", "--partition"]
    assert main([*argv, "icx", "--walltime", "1-12:00:00", "--dry-run"], COMMANDS) == 0
    text = capsys.readouterr().out.replace(str(tmp_path), "/home/u")
    scripts = text[text.index("# train: the job's script") : text.index("\ndry run:")]
    scripts = re.sub(r"\d{8}-\d{6}-\d{6}", "STAMP", scripts).replace(f"segdist {__version__}", "segdist VERSION")
    golden = Path(__file__).with_name("golden_slurm.txt")
    assert scripts == golden.read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "site.toml"]
