"""Plots of a case as shapes in user units: the template draws them, nothing here knows SVG.

Every mark has a text of its own, and everything that is drawn stands in a table too. ``kind`` is a class of the style
sheet: `s0` to `s6` are steps of one scale, for depths; `p-draft` and so on are the parts of a round.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from skulk_core.formats.receipt import AUTO, Arm, Case

WIDTH, HEIGHT = 360, 242
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 26, 38
_BAR, _GAP = 15, 9
_STEPS = 7
PARTS = ("draft", "verify", "commit", "link", "other")


@dataclass(frozen=True)
class Mark:
    """A point of a line, with the range it is the median of, if there is one: ``low`` is below ``high`` on the page."""

    x: float
    y: float
    kind: str
    text: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """Points in the order they are joined, as `x,y x,y`. ``dashed`` lines are no measurement."""

    points: str
    kind: str
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """One plot. ``legend`` are (kind, words). The plane is `[left, right] × [top, bottom]`."""

    title: str
    summary: str
    x_name: str
    y_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    bars: tuple[Bar, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    height: int = HEIGHT
    left: float = _LEFT

    @property
    def width(self) -> int:
        return WIDTH

    @property
    def right(self) -> float:
        return WIDTH - _RIGHT

    @property
    def top(self) -> float:
        """Above it stands the name of the vertical axis, if it has one."""
        return _TOP if self.y_name else 0

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM


def plots(case: Case) -> list[Plot]:
    """Every plot for which the case has figures."""
    drawn = (speedup_plot(case), acceptance_plot(case), split_plot(case), verify_plot(case))
    return [plot for plot in drawn if plot is not None]


def speedup_plot(case: Case) -> Plot | None:
    """Speed-up by draft depth, with the range of the paired runs; `auto` stands beside the depths."""
    found = [(arm, case.figures(arm).speedup) for arm in case.arms if arm.is_ours]
    known = [(arm, speedup) for arm, speedup in found if speedup is not None]
    if len(known) < 2:
        return None
    slots = [arm for arm, _ in known]
    scale = _Scale.up_to(max(speedup.greatest for _, speedup in known))
    places = _slots(len(slots))
    marks = tuple(
        Mark(
            x,
            scale.y(speedup.median),
            _step(arm),
            f"{arm.name}: {speedup.median:.2f} times plain decoding, "
            f"from {speedup.least:.2f} to {speedup.greatest:.2f}",
            scale.y(speedup.least),
            scale.y(speedup.greatest),
        )
        for x, (arm, speedup) in zip(places, known, strict=True)
    )
    fixed = [mark for mark, arm in zip(marks, slots, strict=True) if arm.name != AUTO]
    plain = Line(f"{_LEFT},{scale.y(1):.1f} {WIDTH - _RIGHT},{scale.y(1):.1f}", "plain", dashed=True)
    # the same as in every table: a shallower depth that is as fast but for 2 % counts as the best
    best = next((one for one in known if one[0] is case.best), known[0])
    return Plot(
        "Speed-up by draft depth",
        f"Best: {best[0].name}, {best[1].median:.2f} times plain decoding.",
        "draft depth",
        "× depth 0",
        tuple(Tick(x, AUTO if arm.name == AUTO else str(arm.depth)) for x, arm in zip(places, slots, strict=True)),
        scale.ticks,
        (plain, Line(_joined(fixed), "trend")),
        marks,
    )


def acceptance_plot(case: Case) -> Plot | None:
    """Share of drafts accepted at every position, of those reached; a line for each depth."""
    drafted = [(arm, case.figures(arm).acceptance) for arm in case.arms if arm.is_ours]
    known = [(arm, shares) for arm, shares in drafted if shares]
    if not known:
        return None
    most = max(len(shares) for _, shares in known)
    scale, places = _Scale(100.0, 25.0, "%"), _slots(most)
    lines, marks = [], []
    for arm, shares in known:
        points = [
            Mark(x, scale.y(100 * share), _step(arm), f"{arm.name}, position {at + 1}: {share:.0%} accepted")
            for at, (x, share) in enumerate(zip(places, shares, strict=False))
        ]
        lines.append(Line(_joined(points), _step(arm)))
        marks += points
    return Plot(
        "Acceptance by position",
        f"At the first position {known[-1][1][0]:.0%} ({known[-1][0].name}).",
        "position in the draft",
        "accepted",
        tuple(Tick(x, str(at + 1)) for at, x in enumerate(places)),
        scale.ticks,
        tuple(lines),
        tuple(marks),
        legend=tuple((_step(arm), arm.name) for arm, _ in known),
    )


def split_plot(case: Case) -> Plot | None:
    """Milliseconds a token by the part of the round they went into, a bar for each arm."""
    known = [(arm, arm.profile) for arm in case.arms if arm.profile is not None]
    if not known:
        return None
    most = max(1000 * profile.decode_s / profile.tokens for _, profile in known)
    height = len(known) * (_BAR + _GAP) + _GAP + _BOTTOM
    left, top = 62.0, float(_GAP)
    scale = _Scale.up_to(most)
    per_ms = (WIDTH - _RIGHT - left) / scale.most
    bars, ticks, shown = [], [], set()
    for row, (arm, profile) in enumerate(known):
        x, y = left, top + row * (_BAR + _GAP)
        ticks.append(Tick(y + _BAR / 2, arm.name))
        for part in PARTS:
            ms = 1000 * float(getattr(profile, f"{part}_s")) / profile.tokens
            if ms <= 0:
                continue
            share = ms * profile.tokens / 1000 / profile.decode_s
            bars.append(
                Bar(x, y, ms * per_ms, _BAR, f"p-{part}", f"{arm.name}, {part}: {ms:.2f} ms a token ({share:.1%})")
            )
            shown.add(part)
            x += ms * per_ms
    steps = tuple(Tick(left + value * per_ms, text) for value, text in scale.steps)
    worst = max(profile.other_s / profile.decode_s for _, profile in known)
    return Plot(
        "Where the time goes",
        f"With a barrier after every part; what is in none of them is at most {worst:.1%}.",
        "ms a token",
        "",
        steps,
        tuple(ticks),
        bars=tuple(bars),
        legend=tuple((f"p-{part}", part) for part in PARTS if part in shown),
        height=height,
        left=left,
    )


def verify_plot(case: Case) -> Plot | None:
    """What a verify pass costs by its width, beside what as many passes of one row would."""
    if case.costs is None or len(case.costs.verify_s) < 2:
        return None
    known = sorted((int(width), 1000 * seconds) for width, seconds in case.costs.verify_s.items())
    one_row = known[0][1] / known[0][0]
    widest = known[-1][0]
    scale = _Scale.up_to(max(one_row * widest, max(ms for _, ms in known)))
    places = _slots(widest)
    marks = [
        Mark(places[width - 1], scale.y(ms), "s4", f"{width} rows: {ms:.2f} ms, {ms / one_row:.2f} times one row")
        for width, ms in known
    ]
    linear = Line(
        f"{places[0]:.1f},{scale.y(one_row):.1f} {places[-1]:.1f},{scale.y(one_row * widest):.1f}", "plain", dashed=True
    )
    return Plot(
        "Verify pass by width",
        f"{widest} rows cost {known[-1][1] / one_row:.2f} times one row.",
        "rows in the pass",
        "ms",
        tuple(Tick(x, str(at + 1)) for at, x in enumerate(places)),
        scale.ticks,
        (linear, Line(_joined(marks), "s4")),
        tuple(marks),
        legend=(("s4", "measured"), ("plain", "as many single passes")),
    )


class _Scale:
    """From values to the vertical axis, which begins at 0 and ends at a round number."""

    def __init__(self, most: float, step: float, unit: str = "") -> None:
        self.most, self._step, self._unit = most, step, unit

    @staticmethod
    def up_to(value: float) -> "_Scale":
        """With four to seven steps."""
        rough = max(value, 1e-9) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        return _Scale(step * math.ceil(value / step - 1e-9), step)

    def y(self, value: float) -> float:
        return _TOP + (HEIGHT - _BOTTOM - _TOP) * (1 - value / self.most)

    @property
    def steps(self) -> list[tuple[float, str]]:
        """Values with their texts."""
        values = [self._step * number for number in range(round(self.most / self._step) + 1)]
        return [(value, f"{value:g}{self._unit}") for value in values]

    @property
    def ticks(self) -> tuple[Tick, ...]:
        return tuple(Tick(self.y(value), text) for value, text in self.steps)


def _slots(number: int) -> list[float]:
    """Places of so many columns, each in the middle of its share of the width."""
    share = (WIDTH - _LEFT - _RIGHT) / number
    return [_LEFT + share * (at + 0.5) for at in range(number)]


def _joined(marks: Sequence[Mark]) -> str:
    return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in marks)


def _step(arm: Arm) -> str:
    if arm.depth is None:
        return "auto"
    return f"s{min(arm.depth, _STEPS - 1)}"
