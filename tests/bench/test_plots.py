"""What a plot draws is what was measured, at every point: a picture is believed before its table is read."""

import re
from dataclasses import replace

import pytest
from receipts import arm, case, receipt

from skulk_core.bench.plots import PARTS, Plot, Tick, plots
from skulk_core.bench.report import html_report
from skulk_core.formats.receipt import Arm, Case, CostsRecord, Counts, Profile

ACCEPTED = {1: (90,), 2: (80, 40), 3: (70, 60, 10)}


def drawn() -> Case:
    """No two values of a plot are alike."""
    arms = [arm(0, 1.0)]
    for depth, accepted in ACCEPTED.items():
        counts = Counts(100, {str(depth): 100}, 200, 0, 100, (100,) * depth, accepted)
        spent = Profile(0.02, 0.1 * depth, 0.2 + depth / 100, 0.3 / depth, 0.05 * depth, 0.01, 100, 0.1)
        arms.append(arm(depth, 1.0 + depth / 4, counts=counts, profile=spent))
    return case(arms=tuple(arms), costs=CostsRecord({"1": 0.010, "2": 0.011, "4": 0.019}, {}, {}, 0.001))


def read_at(ticks: tuple[Tick, ...], at: float) -> float:
    """The value that a reader of the axis sees there."""
    (first, last) = ((tick.at, float(tick.text.rstrip("%"))) for tick in (ticks[0], ticks[-1]))
    return first[1] + (at - first[0]) * (last[1] - first[1]) / (last[0] - first[0])


def plot_of(title: str) -> Plot:
    return next(plot for plot in plots(drawn()) if plot.title == title)


def ours() -> list[Arm]:
    return [one for one in drawn().arms if one.is_ours]


def test_speed_ups_stand_at_their_heights() -> None:
    plot = plot_of("Speed-up by draft depth")
    for mark, one in zip(plot.marks, ours(), strict=True):
        speedup = drawn().figures(one).speedup
        assert speedup is not None
        assert mark.low is not None
        assert mark.high is not None
        seen = [read_at(plot.y_ticks, y) for y in (mark.y, mark.low, mark.high)]
        assert seen == pytest.approx([speedup.median, speedup.least, speedup.greatest])


def test_the_best_of_the_plot_is_that_of_the_tables() -> None:
    """The picture would advise another depth than the table beside it."""
    close = case(arms=(arm(0, 1.0), arm(2, 1.90), arm(3, 1.92)))
    assert close.best is not None
    assert close.best.name == "depth 2"
    assert plots(close)[0].summary == "Best: depth 2, 1.90 times plain decoding."


def test_acceptance_stands_at_its_height() -> None:
    plot = plot_of("Acceptance by position")
    expected = [share for accepted in ACCEPTED.values() for share in accepted]
    assert [read_at(plot.y_ticks, mark.y) for mark in plot.marks] == pytest.approx(expected)
    for mark, share in zip(plot.marks, expected, strict=True):
        assert f": {share}% accepted" in mark.text
    places = [mark.x for mark in plot.marks[-3:]]
    assert places == [tick.at for tick in plot.x_ticks] == sorted(places)
    assert [len(line.points.split()) for line in plot.lines] == [1, 2, 3]


def test_parts_are_as_long_as_they_took() -> None:
    plot = plot_of("Where the time goes")
    bars = list(plot.bars)
    for row, one in enumerate(ours()):
        assert one.profile is not None
        end = plot.left
        for part in PARTS:
            ms = 1000 * getattr(one.profile, f"{part}_s") / one.profile.tokens
            if not ms:
                continue
            bar = bars.pop(0)
            assert bar.kind == f"p-{part}"
            assert f"{part}: {ms:.2f} ms" in bar.text
            assert bar.x == pytest.approx(end)
            end = bar.x + bar.width
            assert read_at(plot.x_ticks, end) - read_at(plot.x_ticks, bar.x) == pytest.approx(ms)
            assert bar.y < plot.y_ticks[row].at < bar.y + bar.height
    assert bars == []


def test_passes_stand_at_what_they_cost() -> None:
    plot = plot_of("Verify pass by width")
    assert [read_at(plot.y_ticks, mark.y) for mark in plot.marks] == pytest.approx([10, 11, 19])
    assert [mark.x for mark in plot.marks] == [plot.x_ticks[width - 1].at for width in (1, 2, 4)]
    assert plot.summary == "4 rows cost 1.90 times one row."
    plain = [float(point.split(",")[1]) for point in plot.lines[0].points.split()]
    assert [read_at(plot.y_ticks, y) for y in plain] == pytest.approx([10, 40], rel=0.01)


def test_the_page_draws_every_shape_where_it_is() -> None:
    page = html_report(replace(receipt(), cases=(drawn(),)))
    known = plots(drawn())
    circles = re.findall(r'<circle cx="([^"]+)" cy="([^"]+)"', page)
    assert circles == [(f"{mark.x:.1f}", f"{mark.y:.1f}") for plot in known for mark in plot.marks]
    rects = re.findall(r'<rect class="bar [^"]+" x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"', page)
    assert rects == [
        (f"{bar.x:.2f}", f"{bar.y:.1f}", f"{bar.width:.2f}", f"{bar.height:.1f}") for plot in known for bar in plot.bars
    ]
    lines = re.findall(r'<polyline class="[^"]+" points="([^"]+)"', page)
    assert lines == [line.points for plot in known for line in plot.lines]
