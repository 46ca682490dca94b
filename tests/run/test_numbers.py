"""What counts as a number in a file that another hand may have written: for the tables of jobs and for the report."""

import json
import math

import pytest

from jobs.render.table import number
from segdist.report.text import percent
from segdist.run.folder import RunFolder
from segdist.run.result import Result, as_number, utc_now


@pytest.mark.parametrize("value", [0, 3, -1.5, 1e300])
def test_a_number_stays_as_it_is(value):
    assert as_number(value) == value
    assert type(as_number(value)) is type(value)  # an epoch is printed as 3, not as 3.0


@pytest.mark.parametrize("value", [None, True, False, "3", [3], {}, math.nan, math.inf, -math.inf, 10**400])
def test_anything_else_is_none(value):
    assert as_number(value) is None


@pytest.mark.parametrize(("value", "table"), [(2, "2.0"), (2.25, "2.2"), (math.nan, "–"), (True, "–"), ("2", "–")])
def test_the_tables_of_jobs_and_the_report_show_the_same(value, table):
    assert number(as_number(value)) == table
    assert percent(value).partition("\N{NO-BREAK SPACE}")[0] == table


def test_a_result_with_numbers_that_json_cannot_hold_is_written_and_says_which(tmp_path):
    step = RunFolder(tmp_path).step("evaluate", "fp32")
    metrics = {"sizes": {"32x64": {"loss": math.inf, "iou_pct": [1.0, math.nan]}}, "miou_pct": 4.0, "gap": -math.inf}
    step.write_result(Result("evaluate", "fp32", "completed", utc_now(), utc_now(), math.nan, metrics=metrics))
    found = json.loads(step.result_json.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["metrics"] == {
        "sizes": {"32x64": {"loss": None, "iou_pct": [1.0, None]}},
        "miou_pct": 4.0,
        "gap": None,
    }
    assert found["elapsed_s"] is None
    assert found["not_finite"] == {
        "elapsed_s": "was nan, which JSON cannot hold",
        "metrics.sizes.32x64.loss": "was inf, which JSON cannot hold",
        "metrics.sizes.32x64.iou_pct.1": "was nan, which JSON cannot hold",
        "metrics.gap": "was -inf, which JSON cannot hold",
    }
    assert step.read_result().not_finite == found["not_finite"]
