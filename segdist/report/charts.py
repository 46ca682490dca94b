"""Charts of the report: curves over epochs, bars of IoU by class, tuning trials; each as an SVG element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from segdist.report.svg import MARKERS, PLACEHOLDERS, STYLE, as_svg, color_of, new_figure, short


@dataclass(frozen=True)
class Line:
    """One curve: a value per epoch, None where there is none; ``net`` picks colour and symbol."""

    net: int
    epochs: Sequence[float]
    values: Sequence[float | None]
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar per class: IoU in percent, None for a class that is neither in truth nor in prediction."""

    net: int
    values: Sequence[float | None]
    tinted: bool = False


def line_chart(lines: Sequence[Line], unit: str, alt: str, top: float | None = None) -> str:
    """Curves over epochs; ``unit`` labels the y axis. Returns an SVG element.

    The axis begins at 0 and ends at ``top`` at the most. Without a ``top`` it is logarithmic where the first epochs
    would press all others flat: where the highest value is more than eight times the lowest.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(260)
        for line in lines:
            color = color_of(line.net)
            values = [np.nan if value is None else value for value in line.values]
            axes.plot(
                line.epochs,
                values,
                color=color,
                linewidth=1.8,
                linestyle=(0, (2.2, 1.6)) if line.dashed else "solid",
                marker=MARKERS[line.net % len(MARKERS)],
                markersize=4.5,
                markerfacecolor=PLACEHOLDERS["paper"] if line.dashed else color,
                markeredgewidth=1,
                markevery=max(1, len(values) // 10),
            )
        highest = max((v for line in lines for v in line.values if v is not None), default=1.0)
        lowest = min((v for line in lines for v in line.values if v is not None), default=0.0)
        steep = top is None and 0 < lowest < highest / 8
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if steep:
            axes.set_yscale("log")
            axes.set_ylim(lowest / 1.2, highest * 1.2)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.set_ylim(0, min(highest * 1.08 or 1.0, top or np.inf))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("epoch")
        axes.set_title(
            f"{unit}, logarithmic" if steep else unit, loc="left", fontsize=11.5, color=PLACEHOLDERS["muted"]
        )
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        return as_svg(figure, alt)


def bar_chart(
    classes: Sequence[str], bars: Sequence[Bar], alt: str, swatches: Sequence[str | None] | None = None
) -> str:
    """Horizontal bars of IoU from 0 to 100 %, grouped by class; "absent" where a class has no IoU.

    ``swatches`` are the classes' own colours (CSS), shown beside their names.
    """
    thickness, gap, margin = 9.0, 10.0, 42.0
    group = max(thickness * len(bars), 12.0) + gap
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(group * len(classes) + margin)
        for row, _ in enumerate(classes):
            if swatches and swatches[row]:
                axes.plot(
                    -2.6,
                    row * group,
                    "s",
                    markersize=7,
                    markerfacecolor=swatches[row],
                    markeredgecolor=PLACEHOLDERS["muted"],
                    markeredgewidth=0.5,
                    clip_on=False,
                )
            absent = [number for number, bar in enumerate(bars) if bar.values[row] is None]
            spots = [(len(bars) - 1) / 2] if len(absent) == len(bars) else absent  # said once where it holds for all
            for number in spots:
                y = row * group + (number - (len(bars) - 1) / 2) * thickness
                size = 11.5 if spots is not absent else 8.0
                axes.text(1, y, "absent", fontsize=size, va="center", color=PLACEHOLDERS["muted"])
            for number, bar in enumerate(bars):
                value = bar.values[row]
                y = row * group + (number - (len(bars) - 1) / 2) * thickness
                if value is None:
                    continue
                axes.barh(
                    y,
                    value,
                    thickness - 1.6,
                    color=(color_of(bar.net), 0.3) if bar.tinted else color_of(bar.net),
                    edgecolor=color_of(bar.net),
                    linewidth=0.8,
                )
        axes.set_ylim(len(classes) * group - group / 2, -group / 2)
        axes.set_yticks([row * group for row in range(len(classes))], [short(name) for name in classes])
        axes.tick_params(axis="y", length=0, pad=16 if swatches else 3.5, labelcolor=PLACEHOLDERS["ink"])
        _percent_axis(axes)
        axes.set_xlim(0, 100)
        axes.set_xticks(range(0, 101, 25), ["0", "25", "50", "75", "100 %"])
        return as_svg(figure, alt)


def trials_chart(
    net: int, trials: Sequence[tuple[str, float]], baseline: float | None, goal: float | None, alt: str
) -> str:
    """mIoU in percent of each tuning trial (name, value) as a dot, beside the goal and the fp32 baseline."""
    marks = [value for value in (baseline, goal) if value is not None]
    low, high = min([*marks, *(v for _, v in trials)]), max([*marks, *(v for _, v in trials)])
    room = max(high - low, 0.5)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(26.0 * len(trials) + 74)
        for row, (_, value) in enumerate(trials):
            met = goal is None or value >= goal
            axes.plot(
                value,
                row,
                MARKERS[net % len(MARKERS)],
                markersize=8,
                color=color_of(net),
                markerfacecolor=color_of(net) if met else PLACEHOLDERS["paper"],
                markeredgewidth=1.6,
                zorder=3,
            )
        top = -0.75
        if baseline is not None:
            axes.axvline(baseline, color=PLACEHOLDERS["muted"], linewidth=1)
            axes.text(baseline, top, f" fp32 {baseline:.1f}", va="bottom", fontsize=10.5)
        if goal is not None:
            axes.axvline(goal, color=PLACEHOLDERS["ink"], linewidth=1.2, linestyle=(0, (4, 2)))
            axes.text(goal, top, f"goal {goal:.1f} ", va="bottom", ha="right", fontsize=10.5)
        axes.set_xlim(low - room * 0.35, high + room * 0.35)
        axes.set_ylim(len(trials) - 0.4, top)
        axes.set_yticks(range(len(trials)), [short(name) for name, _ in trials])
        axes.tick_params(axis="y", length=0, labelcolor=PLACEHOLDERS["ink"])
        _percent_axis(axes)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel("mIoU, %")
        return as_svg(figure, alt)


def _percent_axis(axes: Axes) -> None:
    axes.grid(axis="x")
    axes.tick_params(axis="x", length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
