"""The text of job scripts, held by golden files, and the commands that submit them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobs.clusters.pbs.dialect import Dialect, dialect_of, find_dialect
from jobs.clusters.pbs.resources import submit_command
from jobs.clusters.pbs.script import job_name, script_text, shell_path
from jobs.clusters.request import After, Request
from segdist.config import ConfigError

GOLDEN = Path(__file__).parent / "golden"
DIALECTS: tuple[Dialect, ...] = ("pbspro", "torque")
REQUEST = Request(
    command="/venv/bin/python -u -m submitit.core._submit /data/runs/first/.submitit/1",
    folder="/data/runs/first/.submitit/1",
    name="first-train",
    nodes=4,
    cores=24,
    ranks_per_node=2,
    walltime_s=6 * 3600,
    queue="batch",
    properties=("gold6128",),
    cwd="/home/u1/it's $HOME",
    exports={"PATH": "/venv/bin:/bin", "ODD": "a 'b' \"c\" $d\\e"},
    setup=("source /opt/intel/oneapi/setvars.sh",),
    signal_delay_s=90,
    after=(After("/data/runs/first/.submitit/1/12"),),
)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_script_is_the_golden_one(dialect: Dialect) -> None:
    """To renew the files: delete them, run this once, and look at the difference."""
    path = GOLDEN / f"{dialect}.sh"
    text = script_text(REQUEST, dialect)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path} was not there; look at it")
    assert text == path.read_text()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_script_is_bash(dialect: Dialect) -> None:
    subprocess.run(["bash", "-n"], input=script_text(REQUEST, dialect), text=True, check=True)


def test_placement_over_nodes_is_forced() -> None:
    assert "#PBS -l place=scatter\n" in script_text(REQUEST, "pbspro")
    assert "#PBS -l nodes=4:gold6128:ppn=24\n" in script_text(REQUEST, "torque")


def test_what_a_dialect_lacks_is_refused_because_torque_would_ignore_it() -> None:
    for request in (Request("true", "/f", select="2:ncpus=1"), Request("true", "/f", options=("-l select=2",))):
        with pytest.raises(ConfigError, match="Torque"):
            script_text(request, "torque")
    with pytest.raises(ConfigError, match='options: "-d .": PBS Pro does not know it'):
        script_text(Request("true", "/f", options=("-d .",)), "pbspro")
    assert "#PBS -l select=2:ncpus=1\n" in script_text(Request("true", "/f", select="2:ncpus=1"), "pbspro")


@pytest.mark.parametrize("folder", ["/data/with space", "/data/$HOME", "/data/it's", "host:/data"])
def test_a_folder_that_pbs_would_mangle_is_not_named_in_a_directive(folder: str) -> None:
    text = script_text(Request("true", folder), "torque")
    directives = [line for line in text.splitlines() if line.startswith("#PBS")]
    assert "#PBS -k oe" in directives
    assert not any(folder in line for line in directives)


def test_a_name_has_no_blanks_and_is_not_too_long() -> None:
    assert job_name("my run/1", "pbspro") == "my_run_1"
    assert job_name("1st", "pbspro") == "j1st"
    assert len(job_name("x" * 300, "pbspro")) == 236
    assert len(job_name("x" * 300, "torque")) == 15


def test_dependency_and_array_are_on_the_command_line_for_a_continuation_has_neither() -> None:
    assert submit_command("/f/a b.sh", "pbspro", "afterok:1", 4, 2) == [
        "qsub", "-W", "depend=afterok:1", "-J", "0-3%2", "/f/a b.sh",
    ]  # fmt: skip
    assert submit_command("x.sh", "torque", elements=3) == ["qsub", "-t", "0-2", "x.sh"]


def test_ids_in_the_folder_are_filled_in_by_the_shell() -> None:
    text = f"SUBMITIT_PBS_ID=47_3; echo {shell_path('/a b/%j/%A-%a/$x')}"
    assert subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout == (
        "/a b/47_3/47-3/$x\n"
    )


def test_the_dialect_is_read_from_the_version_and_never_guessed() -> None:
    assert dialect_of("pbs_version = 23.06.06\n") == "pbspro"
    assert dialect_of("Version: 6.1.3\nCommit: 170ba4d\n") == "torque"
    assert find_dialect("torque", ask=lambda _: pytest.fail("it was named")) == "torque"
    with pytest.raises(ConfigError, match="says 'SGE 8.1': neither PBS Pro nor Torque"):
        find_dialect("auto", ask=lambda _: "SGE 8.1")
    with pytest.raises(ConfigError, match='dialect = "lsf": is not known'):
        find_dialect("lsf")


@pytest.mark.parametrize(
    ("values", "message"),
    [({"nodes": 0}, "nodes = 0"), ({"umask": "22"}, 'umask = "22"'), ({"queue": "a b"}, "'a b': must have no blanks")],
)
def test_values_that_cannot_be_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Request("true", "/f", **values)  # type: ignore[arg-type]
