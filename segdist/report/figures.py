"""The report's figures that compare: confusion matrices, mIoU against latency, and bars of one quantity.

They are drawn as :mod:`segdist.report.charts` draws: inline SVG whose colours follow the page's theme. What is told by
colour is told by shape or by lightness as well, so that a page in black and white says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from segdist.report.svg import MARKERS, PLACEHOLDERS, STYLE, as_svg, color_of, glyph, new_figure, short

PRECISION_OPACITY = {"fp32": 1.0, "bf16": 0.55, "int8": 0.0}
"""How full a mark is drawn: fp32 full, bf16 half, int8 hollow."""


@dataclass(frozen=True)
class Mark:
    """One measurement: the net's number, its precision, and a value, or an (x, y) pair in a scatter.

    ``eager`` is the latency of the eager net, shown beside a value that is that of the traced one.
    """

    net: int
    precision: str
    value: float
    y: float = 0.0
    eager: float | None = None


def heat_map(counts: NDArray[np.int64], classes: Sequence[str], net: int, alt: str) -> str:
    """A confusion matrix, true class by row, in percent of each row. Returns an SVG element.

    Args:
        counts: int64 ``[classes, classes]``.
        classes: their names.
        net: picks the colour; the darker, the more.
        alt: what it says, for those who do not see it.
    """
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    size = len(classes)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(535, 560)
        for row, column in zip(*np.nonzero(counts)):
            share = float(shares[row, column])
            opacity = share**0.6  # small confusions are what one looks for
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=(color_of(net), round(opacity, 3)), lw=0)
            )
            if share >= 0.005:
                role = "paper" if opacity > 0.62 else "ink"
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9.5 if size < 15 else 7.5}
                axes.text(column, row, f"{100 * share:.0f}", color=PLACEHOLDERS[role], **style)
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_xticks(range(size), [short(name, 18) for name in classes], rotation=90)
        axes.set_yticks(range(size), [short(name, 18) for name in classes])
        axes.tick_params(length=0, labelcolor=PLACEHOLDERS["ink"], labelsize=11)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for edge in np.arange(-0.5, size):
            axes.axhline(edge, color=PLACEHOLDERS["line"], linewidth=0.5, zorder=0)
            axes.axvline(edge, color=PLACEHOLDERS["line"], linewidth=0.5, zorder=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return as_svg(figure, alt)


def scatter(marks: Sequence[Mark], alt: str) -> str:
    """mIoU (``y``, percent) against latency (``value``, ms, logarithmic); a net's marks are joined."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(300)
        for net in dict.fromkeys(mark.net for mark in marks):
            own = sorted((mark for mark in marks if mark.net == net), key=lambda mark: mark.value)
            axes.plot([m.value for m in own], [m.y for m in own], color=color_of(net), linewidth=1, zorder=1)
            for number, mark in enumerate(own):
                if mark.eager:  # a thin line to where the eager net is
                    axes.plot([mark.value, mark.eager], [mark.y] * 2, "|:", color=color_of(net), linewidth=1, zorder=1)
                _mark(axes, mark.value, mark.y, mark)
                above = number % 2 == 0  # neighbours of one net often have nearly the same height
                axes.annotate(
                    mark.precision,
                    (mark.value, mark.y),
                    xytext=(0, 8 if above else -8),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if above else "top",
                    fontsize=10.5,
                )
        _log_axis(axes, [value for mark in marks for value in (mark.value, mark.eager) if value])
        low, high = min(mark.y for mark in marks), max(mark.y for mark in marks)
        room = max(high - low, 1.0) * 0.35
        axes.set_ylim(max(low - room, -4), min(high + room, 104))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("ms an image")
        axes.set_title("mIoU, %", loc="left", fontsize=11.5, color=PLACEHOLDERS["muted"])
        axes.grid(axis="both")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        return as_svg(figure, alt)


def bars(marks: Sequence[Mark], digits: int, alt: str, named: bool = True) -> str:
    """Horizontal bars from 0 with their values, one a mark; ``named`` writes the precision beside the net's symbol."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(20.0 * len(marks) + 8, 300)
        highest = max((mark.value for mark in marks), default=0.0) or 1.0
        for row, mark in enumerate(marks):
            color = color_of(mark.net)
            axes.barh(
                row,
                mark.value,
                0.66,
                color=(color, {"fp32": 1.0, "bf16": 0.55}.get(mark.precision, 0.2)),
                edgecolor=color,
                linewidth=1,
            )
            axes.text(mark.value + highest * 0.02, row, _said(mark, digits), va="center", fontsize=11)
        axes.set_ylim(len(marks) - 0.5, -0.5)
        axes.set_xlim(0, highest * (1.7 if any(mark.eager for mark in marks) else 1.2))
        names = [f"{glyph(mark.net)} {mark.precision}" if named else glyph(mark.net) for mark in marks]
        axes.set_yticks(range(len(marks)), names)
        axes.tick_params(axis="y", length=0, labelcolor=PLACEHOLDERS["ink"])
        axes.xaxis.set_major_locator(NullLocator())
        for side in ("bottom", "top", "right"):
            axes.spines[side].set_visible(False)
        return as_svg(figure, alt)


def _said(mark: Mark, digits: int) -> str:
    beside = f" (eager {mark.eager:.{digits}f})" if mark.eager else ""
    return f"{mark.value:.{digits}f}{beside}"


def _mark(axes: Axes, x: float, y: float, mark: Mark) -> None:
    color = color_of(mark.net)
    opacity = PRECISION_OPACITY.get(mark.precision, 1.0)
    shape = MARKERS[mark.net % len(MARKERS)]
    axes.plot(x, y, shape, markersize=9, color=PLACEHOLDERS["paper"], markeredgewidth=0, zorder=2)  # hides the line
    face = (color, opacity)
    axes.plot(x, y, shape, markersize=9, markerfacecolor=face, markeredgecolor=color, markeredgewidth=1.6, zorder=3)


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with round ticks: 1, 2, 5 of each decade in sight, and half of them where they are few."""
    low, high = min(values), max(values)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.35, high * 1.35)
    decades = range(int(np.floor(np.log10(low / 1.35))), int(np.ceil(np.log10(high * 1.35))) + 1)
    steps = (1, 2, 5) if high / low > 3 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low / 1.35 <= tick <= high * 1.35]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
