"""How every chart of the report is drawn: colours that follow the page's theme, symbols, inline SVG.

A chart is drawn once. Each colour is a placeholder that becomes a CSS variable in the text (``var(--ink)``),
so one drawing reads well on light, on dark and on paper. Text stays text, in the page's own font. matplotlib
is used through ``Figure`` objects: nothing here touches pyplot or its global state.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = 6
"""Net i has the colour ``var(--s{i % COLORS})``; light and dark values are in the template."""
GLYPHS = "●■▲◆▼"
"""Net i has this symbol too, as colour alone is not for everyone; 5 and 6 give 30 different pairs."""
MARKERS = "os^Dv"
_ROLES = ("ink", "muted", "line", "paper", *(f"s{i}" for i in range(COLORS)))
PLACEHOLDERS = {role: f"#0301{number:02x}" for number, role in enumerate(_ROLES)}
WIDTH = 420  # SVG units; text of 11.5 units stays readable when a phone shows 370 of them per 420
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "segdist",
    "text.parse_math": False,  # a class may be named "$"
    "font.family": "DejaVu Sans",  # for measuring only; it ships with matplotlib
    "font.size": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelsize": 11.5,
    "axes.edgecolor": PLACEHOLDERS["line"],
    "axes.labelcolor": PLACEHOLDERS["muted"],
    "text.color": PLACEHOLDERS["ink"],
    "xtick.color": PLACEHOLDERS["line"],
    "ytick.color": PLACEHOLDERS["line"],
    "xtick.labelcolor": PLACEHOLDERS["muted"],
    "ytick.labelcolor": PLACEHOLDERS["muted"],
    "grid.color": PLACEHOLDERS["line"],
    "grid.linewidth": 0.7,
}


def glyph(net: int) -> str:
    """The symbol of net number ``net``."""
    return GLYPHS[net % len(GLYPHS)]


def color_of(net: int) -> str:
    """The placeholder of a net's colour."""
    return PLACEHOLDERS[f"s{net % COLORS}"]


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure of that size in SVG units, with its axes."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    return figure, figure.subplots()


def short(name: str, length: int = 24) -> str:
    """A tick's text; a longer one would leave no room for the bars, and stands whole in the table."""
    return name if len(name) <= length else name[: length - 1] + "…"


def as_svg(figure: Figure, alt: str) -> str:
    """The figure as an SVG element for an HTML page: no prolog, no fonts, no ids but those it refers to."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's browser has the font
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)
    label = html.escape(alt, quote=True)
    svg = re.sub(
        r"<svg[^>]*>",
        lambda _: f'<svg {view[0] if view else ""} role="img" aria-label="{label}">',
        svg,
        count=1,
    )
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"font: [^;\"<]*?([\d.]+px)[^;\"<]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"<]*;? ?", "", svg)
    for role, placeholder in PLACEHOLDERS.items():
        svg = svg.replace(placeholder, f"var(--{role})")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    unique = hashlib.sha256(svg.encode()).hexdigest()[:8]  # two charts of one page may share a shape
    return re.sub(r'(url\(#| href="#| id=")', rf"\g<1>{unique}-", svg)
