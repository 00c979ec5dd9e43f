"""The HTML report, opened in a browser as its reader does: whole, readable, and without a network."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from receipts import arm, case, receipt

from skulk_core.bench.report import html_report, markdown_report
from skulk_core.bench.tables import notes
from skulk_core.formats.receipt import Receipt
from skulk_core.formats.receipt_facts import ModelRecord, SamplingRecord

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & {{ 7 * 7 }} | `x` [a](javascript:b)\n# h"
PLOTS = ["Speed-up by draft depth", "Acceptance by position", "Where the time goes", "Verify pass by width"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; on CI, where `.ci/browser` installs it, a missing one is a failure."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("SKULK_TEST_BROWSER") == "required":
            pytest.fail("no browser: .ci/browser installs one")
        pytest.skip("no Chromium here: .ci/browser installs one")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


def page_of(browser: Any, folder: Path, written: Receipt, width: int, scheme: str) -> tuple[Any, list[str], list[str]]:
    """The page, what it asked of a network, and what the browser complained of."""
    file = folder / "bench.html"
    file.write_text(html_report(written), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    return page, [url for url in asked if not url.startswith(("file:", "data:"))], complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_is_whole_at_every_width_and_in_both_schemes(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    """A report that runs off a phone, or is black on black, is not read."""
    page, asked, complaints = page_of(browser, tmp_path, receipt(cases=(case(), case(name="two"))), width, scheme)
    assert (asked, complaints) == ([], [])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure b").all_inner_texts() == PLOTS * 2
    for figure in page.locator("figure").all():
        box, drawn = figure.bounding_box(), figure.locator("svg").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert drawn["width"] > 250
        assert drawn["height"] > 100
        outer = figure.locator("svg").evaluate(
            """svg => { const own = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text, circle, rect, polyline')].filter(one => {
                    const box = one.getBoundingClientRect();
                    return box.left < own.left - 1 || box.right > own.right + 1
                        || box.top < own.top - 1 || box.bottom > own.bottom + 1;
                }).length; }"""
        )
        assert outer == 0, "something is drawn beyond its plot"
    # a page that is light in both schemes is readable, and a lamp in the face at night
    assert page.evaluate(_BODY_LIGHT) < 0.1 if scheme == "dark" else page.evaluate(_BODY_LIGHT) > 0.8
    # WCAG's contrast of words with what is behind them
    assert page.evaluate(_LEAST_CONTRAST) >= 4.5


def test_every_figure_stands_on_the_page(browser: Any, tmp_path: Path) -> None:
    written = receipt()
    page, _, _ = page_of(browser, tmp_path, written, 1100, "light")
    measured = written.cases[0]
    rows = page.locator("table").nth(0).locator("tbody tr")
    assert rows.count() == len(measured.arms)
    for row, one in zip(rows.all_inner_texts(), measured.arms, strict=True):
        figures = measured.figures(one)
        assert figures.tokens_per_s is not None
        assert figures.speedup is not None
        for text in (one.name, f"{figures.tokens_per_s.median:.1f}", f"{figures.speedup.median:.2f}"):
            assert text in row
    marks = page.locator("figure").nth(0).locator("g.mark title").all_text_contents()
    assert [mark.split(":")[0] for mark in marks] == [one.name for one in measured.arms if one.is_ours]
    assert any("1.92 times plain decoding" in mark for mark in marks)
    heights = (
        page.locator("figure")
        .nth(0)
        .locator("g.mark circle")
        .evaluate_all("all => all.map(c => +c.getAttribute('cy'))")
    )
    # what is faster stands higher: depth 3 above all, depth 0 below all
    assert min(heights) == heights[3]
    assert max(heights) == heights[0]
    bars = page.locator("figure").nth(2).locator("rect")
    assert bars.count() == sum(
        sum(part > 0 for part in (one.profile.draft_s, one.profile.verify_s, one.profile.commit_s, one.profile.other_s))
        for one in measured.arms
        if one.profile is not None
    )


def test_an_unfinished_or_failed_benchmark_says_so(browser: Any, tmp_path: Path) -> None:
    """Half a benchmark looks like a whole one otherwise."""
    wrong = case(arms=(arm(0, 1.0), arm(1, 3.0, failed="token 5 is another")))
    page, _, _ = page_of(browser, tmp_path, receipt(complete=False, cases=(wrong,)), 390, "dark")
    assert page.locator(".warn").is_visible()
    text = page.locator("body").inner_text()
    assert "FAILED: token 5 is another" in text
    assert "3.00" not in text
    assert "**Incomplete:**" in markdown_report(receipt(complete=False))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_names_of_others_stay_text() -> None:
    """A model's name could otherwise run a script on the machine of whoever opens the report."""
    evil = receipt(
        model=ModelRecord(HOSTILE, "", HOSTILE, "float32", HOSTILE, 1, 1, 1, 1),
        command=HOSTILE,
        cases=(case(name=HOSTILE, arms=(arm(0, 1.0, name="depth 0"), arm(1, 2.0, skipped=None, failed=HOSTILE))),),
    )
    found = _Tags()
    found.feed(html_report(evil))
    assert not {"script", "img", "iframe", "object"} & set(found.tags)
    assert not [name for name in found.attributes if name.startswith("on") or name in ("src", "srcset")]
    markdown = markdown_report(evil)
    for markup in ("<script", "`x`", "](java", "\n# h"):
        assert markup not in re.sub(r"\\.", "", markdown), markup


def test_the_page_loads_nothing() -> None:
    page = html_report(receipt())
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)
    assert page == html_report(receipt())


def test_a_suite_has_a_line_for_every_case() -> None:
    cases = tuple(replace(case(), name=f"case {number}") for number in range(3))
    text = markdown_report(receipt(cases=cases))
    table = text.split("## All cases")[1].split("##")[0]
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| case ")][1:] == [
        f"| case {number}" for number in range(3)
    ]
    # two turns, the second a tenth slower: what a case says of the machine while it was measured
    assert "| drift |" in table
    assert table.count("| +10% |") == 3
    note = "Drift: depth 0 took 10.0% more time in the last turn than in the first (all turns: from +0.0% to +10.0%)."
    assert note in notes(case())
    alone = notes(case(turns=1, reference_by_turn=(1.0, 0.95)))
    assert "Drift: depth 0 took 5.0% less time for its first text when that was decoded again at the end." in alone


def test_how_tokens_were_chosen_is_told() -> None:
    """Speeds under penalties, or of drawn tokens, are others: a reader must see what was measured."""
    drawn = SamplingRecord(0.7, 0.9, 40, 0.05, 1.1, 0.2, 0.3, {"5": -2.0, "7": None}, 9, "token")
    said = notes(case(sampling=drawn, exactness="distribution"))[0]
    for one in (
        "temperature 0.7, top-p 0.9, top-k 40, min-p 0.05, repetition penalty 1.1, presence penalty 0.2",
        "frequency penalty 0.3, logit bias of token 5 -2, 7 never, seed 9, drafts judged by token;",
    ):
        assert one in said
    assert "2 turns, greedy; figures" in notes(case())[0]
    assert "greedy, exactness strict; figures" in notes(case(exactness="strict"))[0]


def test_a_text_that_is_another_shows_without_a_certificate() -> None:
    """With --no-certify the fastest arm may have decoded something else, which nobody would see."""
    arms = [arm(0, 1.0, certificate=None), arm(1, 3.0, certificate=None, same_as_reference=False)]
    table = markdown_report(receipt(cases=(case(arms=tuple(arms)),))).split("## docs")[1]
    assert "none; as depth 0" in table
    assert "none; NOT as depth 0" in table


_BODY_LIGHT = """() => {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255; }"""
_LEAST_CONTRAST = """() => {
  const part = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
  const behind = one => { for (; one; one = one.parentElement) { const c = getComputedStyle(one).backgroundColor;
    if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } return 'rgb(255, 255, 255)'; };
  return Math.min(...[...document.querySelectorAll('h1, h2, p, dt, dd, th, td, figcaption, li, svg text')].map(one => {
    const style = getComputedStyle(one), ink = light(one instanceof SVGElement ? style.fill : style.color);
    const back = light(behind(one));
    return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05); }));
}"""
