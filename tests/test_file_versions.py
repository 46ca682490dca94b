"""Files of other releases: the changelog names what is read, and others are refused by name."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from jobs.record import run_json
from segdist import __version__
from segdist.machine import profile
from segdist.models import model_file
from segdist.run import result
from segdist.run.result import Result, ResultError, read_result
from segdist.training import checkpoint_file

CHANGELOG = (Path(__file__).parents[1] / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
SERIES = ".".join(__version__.split(".")[:2])


def read_by_this_version():
    """(file, schema) of each row of the changelog's table that this version is said to read."""
    table = CHANGELOG[CHANGELOG.index("#### Which version reads which files") :].split("\n\n#### ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {(row[0], row[1]) for row in rows[2:] if SERIES in re.findall(r"\d+\.\d+", row[3])}


def test_the_changelog_names_what_the_code_reads():
    assert read_by_this_version() == {
        ("`run.json`", str(run_json.FORMER_SCHEMA_VERSION)),
        ("`run.json`", str(run_json.SCHEMA_VERSION)),
        ("`result.json`", str(result.SCHEMA_VERSION)),
        ("checkpoints (`*.pt` in `checkpoints/`)", checkpoint_file.FORMAT),
        ("`model.pt`", model_file.FORMAT),
        ("`model_int8.torchscript`", "`segdist.json` inside it"),
        ("a node's profile", str(profile.SCHEMA)),
    }


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_a_result_of_another_release_is_refused_by_its_name_and_left_alone(tmp_path, schema):
    path = tmp_path / "result.json"
    values = dataclasses.asdict(Result("train", "train", "completed", "now", versions={"segdist": "9.1.0"}))
    path.write_text(json.dumps({**values, "schema_version": schema}))
    before = path.read_bytes()
    said = f"result.json: was written by segdist 9.1.0 with schema {schema!r}, and segdist {__version__} reads 1; it is"
    with pytest.raises(ResultError, match=re.escape(said)):
        read_result(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["[]", '"x"', "{}", "null", "3"])
def test_a_file_that_is_something_else_is_refused_too(tmp_path, text):
    for name, read in (("result.json", read_result), ("run.json", run_json.read_spec)):
        (tmp_path / name).write_text(text)
        with pytest.raises(ResultError, match=f"{name}: "):
            read(tmp_path / name)


def test_a_run_json_of_a_later_release_is_refused_by_its_name(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"schema_version": 4, "versions": {"segdist": "0.3.0"}}))
    with pytest.raises(
        ResultError, match=r"was written by segdist 0\.3\.0 with schema 4, and segdist .* reads 2 and 3"
    ):
        run_json.read_spec(path)
