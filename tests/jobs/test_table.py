"""Text tables, numbers and durations."""

from __future__ import annotations

import pytest

from jobs.render.table import duration, format_table, number, shorten


def test_a_table_is_aligned_and_has_no_trailing_blanks() -> None:
    table = format_table(("run", "p50\nms", ""), [("unet", "41.5", "fine"), ("hrnet", "–", "")], left=(0, 2))
    assert table == (
        "        p50\n"
        "run      ms\n"
        "─────  ────  ────\n"
        "unet   41.5  fine\n"
        "hrnet     –"
    )  # fmt: skip


@pytest.mark.parametrize(("seconds", "text"), [(None, "–"), (0.4, "0:00:00"), (61, "0:01:01"), (360_000, "100:00:00")])
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_and_what_was_not_measured() -> None:
    assert (number(1.25, 1), number(None)) == ("1.2", "–")


def test_a_long_name_loses_its_middle() -> None:
    assert shorten("hrnetv2_w18-20260131-120000", 15) == "hrnetv2…-120000"
    assert shorten("unet", 15) == "unet"
