"""The report in a real headless browser: it draws everything, complains of nothing, fits a phone, and sorts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segdist.report.page import write_report

from .browser import Tab, browser, find_browser
from .run_fixture import HRNET, UNET, make_run

PROGRAM = find_browser()
pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on this machine")]

DRAWN = """
[...document.images].map(image => [image.alt, image.complete && image.naturalWidth > 0]).concat(
  [...document.querySelectorAll("svg")].map(svg => {
    const box = svg.getBoundingClientRect();
    const drawn = box.width > 100 && box.height > 20 && svg.querySelectorAll("path").length > 0;
    return [svg.getAttribute("aria-label"), drawn];
  }))
"""
ROWS = """
[...document.querySelectorAll("#speed ~ .scroll tbody tr")]
  .map(row => [...row.cells].map(cell => cell.innerText.trim()))
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    runs = [make_run(folder / "demo-unet", UNET, images=3), make_run(folder / "demo-hrnet", HRNET, images=3)]
    return write_report(runs, folder / "report.html")


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    assert PROGRAM is not None
    with browser(PROGRAM) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_everything_is_drawn_without_a_complaint_or_a_request(tab: Tab, page: Path, width: int, scheme: str) -> None:
    tab.open(page, width, scheme=scheme)
    drawn = tab.run(DRAWN)
    assert len(drawn) == 3 * 10 + 15
    assert [alt for alt, good in drawn if not good] == []
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith(("data:", page.as_uri()))] == []
    assert tab.run("document.documentElement.scrollWidth") <= width  # wide tables scroll on their own
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]


def test_text_of_the_charts_is_large_enough_on_a_phone(tab: Tab, page: Path) -> None:
    tab.open(page, 400)
    sizes = tab.run(
        """[...document.querySelectorAll("svg text")].map(text => text.getBoundingClientRect())
        .map(box => Math.min(box.width, box.height)).filter(height => height > 0)"""
    )
    assert min(sizes) >= 4  # the narrow side of a digit
    assert sorted(sizes)[len(sizes) // 2] >= 7


def test_a_click_sorts_the_table_and_another_turns_it_round(tab: Tab, page: Path) -> None:
    tab.open(page, 1400)

    def click(column: int) -> list[list[str]]:
        tab.run(f"document.querySelectorAll('#speed ~ .scroll thead button')[{column}].click()")
        rows: list[list[str]] = tab.run(ROWS)
        return rows

    before = tab.run(ROWS)
    heads = tab.run("[...document.querySelectorAll('#speed ~ .scroll thead th')].map(head => head.innerText)")
    p50 = next(number for number, head in enumerate(heads) if head.startswith("p50"))
    miou = next(number for number, head in enumerate(heads) if head.startswith("mIoU"))
    rising = [float(row[p50]) for row in click(p50)]
    assert rising == sorted(rising)
    assert [row[p50] for row in before] != [row[p50] for row in tab.run(ROWS)]
    falling = [float(row[p50]) for row in click(p50)]
    assert falling == rising[::-1]
    state = "document.querySelectorAll('#speed ~ .scroll thead th')[%d].getAttribute('aria-sort')"
    assert tab.run(state % p50) == "descending"
    for turn in range(2):
        scores = [row[miou] for row in click(miou)]
        assert scores[-2:] == ["–", "–"], turn  # the traced nets have none, whichever way
        assert scores[:4] == sorted(scores[:4], key=lambda text: float(text.split()[0]), reverse=turn == 1)
    assert tab.run(state % p50) == "none"
    assert sorted(map(tuple, before)) == sorted(map(tuple, tab.run(ROWS)))  # the same rows as before
    by_name: list[Any] = [row[0] for row in click(0)]
    assert by_name == sorted(by_name, key=lambda name: name[2:])
    assert tab.complaints() == []


def test_the_browser_reports_what_a_page_does_wrong(tab: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='missing.png' alt=''><script>console.error('no'); nothing.here()</script>")
    tab.open(bad, 400)
    assert len(tab.complaints()) >= 2
    assert any("missing.png" in url for url in tab.requests())
    assert tab.run("document.images[0].naturalWidth") == 0
