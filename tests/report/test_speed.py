"""A speed-up is like for like, or is not claimed: in the sentence, in the table's notes, and for older results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .page_fixture import edit, report
from .run_fixture import HRNET, make_run

Values = dict[str, Any]


def change_int8(run: Path, change: Callable[[Values, Values], Any]) -> None:
    """Change the int8 evaluation: given its values at the one size, and its machine."""
    edit(run / "evaluate" / "int8" / "result.json", lambda r: change(r["metrics"]["sizes"]["256x512"], r["machine"]))


def forget(values: Values) -> None:
    """Leave out what earlier versions did not measure or say."""
    for key in [key for key in values if key.startswith(("fp32_", "goal"))]:
        del values[key]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", HRNET)


def test_int8_that_is_slower_than_traced_fp32_is_said_to_be(run: Path) -> None:
    change_int8(run, lambda values, _: values.update(latency_ms_p50=155.7))
    page = report(run)
    said = "0.97×: slower than traced fp32 (156 against 151 ms) (1.2× over eager)"
    assert f"int8 61.2 % mIoU (fp32 61.5 %), {said}" in page.text
    assert f"hrnetv2_w18 int8, 256×512: {said}; goal 1 % relative met: int8 mIoU 61.21 %" in page.text
    assert "int8 61.2 % −0.3 88.3 % 156 110 0.97× 1.2×" in page.text


def test_the_goal_is_judged_at_the_evaluations_own_size(run: Path) -> None:
    change_int8(run, lambda values, _: values.update(goal_met=False, miou_pct=60.0))
    page = report(run)
    assert "goal 1 % relative met in tuning, MISSED in the evaluation" in page.text
    assert "goal 1 % relative MISSED: int8 mIoU 60.00 %, fp32 61.52 %, goal 60.90 %" in page.text


def test_an_older_result_on_the_same_cpu_is_held_against_the_fp32_evaluation(run: Path) -> None:
    change_int8(run, lambda values, _: forget(values))
    page = report(run)
    assert "1.5× faster than traced fp32 (1.9× over eager)" in page.text
    assert "hrnetv2_w18 int8, 256×512: goal not judged: this evaluation does not say; evaluate again" in page.text


def test_an_older_result_without_traced_fp32_has_no_speed_up(run: Path) -> None:
    change_int8(run, lambda values, _: forget(values))

    def drop_traced(result: Values) -> None:
        values = result["metrics"]["sizes"]["256x512"]
        for key in [key for key in values if key.startswith("traced_")]:
            del values[key]

    edit(run / "evaluate" / "fp32" / "result.json", drop_traced)
    page = report(run)
    reason = "it has no latency of fp32 beside its own; evaluation fp32 has no latency of traced fp32"
    assert f"int8 61.2 % mIoU (fp32 61.5 %), no speed-up claimed ({reason}), 4.1× smaller" in page.text
    assert "int8 61.2 % −0.3 88.3 % 100 110 – – 9.50" in page.text
    assert "1.9×" not in page.text
    assert page.faults == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values, machine: machine.update(cpu="Other"), "CPU Example Xeon 8480+ against Other"),
        (lambda values, machine: machine.update(threads_per_rank=8), "threads 1 against 8"),
        (lambda values, machine: values.update(latency_input="128x256"), "input 256x512 against 128x256"),
        (lambda values, machine: machine.pop("cpu"), "CPU Example Xeon 8480+ against not recorded"),
    ],
)
def test_what_was_measured_otherwise_is_no_base(
    run: Path, change: Callable[[Values, Values], Any], reason: str
) -> None:
    change_int8(run, lambda values, _: forget(values))
    change_int8(run, change)
    page = report(run)
    assert f"beside its own; evaluation fp32 is not comparable: {reason})" in page.text
    assert "faster than" not in page.text


def test_p99_is_shown_of_100_passes_alone(run: Path) -> None:
    assert "int8 100 110 – 102" in report(run).text
    change_int8(run, lambda values, _: values.update(latency_passes=100))
    assert "int8 100 110 120 102" in report(run).text
