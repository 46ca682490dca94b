"""Aligned text tables."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns two spaces apart, those in ``left`` flush left, the others flush right.

    A head may have several lines (``"p50\\nms"``); they stand on the lowest ones. No line ends in blanks.
    """
    lines = [cell.split("\n") for cell in head]
    depth = max(len(cell) for cell in lines)
    heads = [[([""] * (depth - len(cell)) + cell)[row] for cell in lines] for row in range(depth)]
    body = [*heads, *rows]
    widths = [max(len(row[column]) for row in body) for column in range(len(head))]
    rule = ["─" * width for width in widths]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(line(row) for row in [*heads, rule, *rows])


def number(value: float | None, digits: int = 1) -> str:
    """A number with that many decimals, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """``H:MM:SS``, or a dash."""
    if seconds is None:
        return "–"
    minutes, second = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def shorten(text: str, width: int) -> str:
    """The text, with its middle left out where it is longer than ``width``."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
