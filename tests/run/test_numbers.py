"""What counts as a number in a file that another hand may have written: for the tables of jobs and for the report."""

import math

import pytest

from jobs.render.table import number
from segdist.report.text import percent
from segdist.run.result import as_number


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
