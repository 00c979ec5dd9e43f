"""What a person sees of a probe: a line when a run measured a head, the table of `skulk doctor`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cli.program import INTERRUPTS
from cli.render import Reporter
from skulk_core.types import CONVENTION_NAMES, Conventions

if TYPE_CHECKING:
    from skulk_core.heads.verdict import Candidate, Probe
    from skulk_core.heads.wiring import Wiring


def measuring(reporter: Reporter) -> Callable[[], None]:
    """The progress of a probe: shown, and interrupted by Ctrl-C."""

    def progress() -> None:
        reporter.step("measuring how the head is wired")
        INTERRUPTS.check()

    return progress


def in_words(conventions: Conventions) -> str:
    """As `--verbose` says them."""
    return ", ".join(f"{name} {value}" for name, value in asdict(conventions).items())


def measured_line(name: str, wiring: "Wiring") -> str:
    """What was measured of the head ``name``, and where it is kept."""
    assert wiring.probe is not None
    assert wiring.probe.picked is not None
    wired = in_words(wiring.probe.picked.conventions)
    ending = f"; kept in {wiring.kept_in}" if wiring.kept_in is not None else ""
    if wiring.not_kept:
        ending = f"; to be measured again, because it cannot be kept: {wiring.not_kept}"
    return f"{name} does not say how it is wired; measured: {wired}; {_shares(wiring.probe)}{ending}"


def summary(probe: "Probe") -> str:
    """What was picked and why, in a sentence or two."""
    if probe.picked is None:
        return "picked: none, because no candidate is clearly better than chance"
    return f"picked: {in_words(probe.picked.conventions)}; {_shares(probe)}"


def table(probe: "Probe") -> Table:
    """All candidates, the best first."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("", no_wrap=True)
    wirings = [asdict(candidate.conventions) for candidate in probe.candidates]
    # what a layout leaves no choice in is not worth a column
    varied = [name for name in CONVENTION_NAMES if len({wired[name] for wired in wirings}) > 1]
    for name in (*varied, "1st draft", "2nd draft"):
        shown.add_column(name.replace("_", " "), no_wrap=name in varied, justify="left" if name in varied else "right")
    for candidate, wired in zip(probe.candidates, wirings, strict=True):
        values = [str(wired[name]) for name in varied]
        second = "" if candidate.second is None else f"{candidate.second:.1%}"
        shown.add_row(Text(_mark(probe, candidate)), *values, f"{candidate.first:.1%}", second)
    return shown


def as_json(probe: "Probe") -> dict[str, object]:
    """The probe as `--json` prints it."""
    return {
        "num_tokens": probe.num_tokens,
        "num_texts": probe.num_texts,
        "chance": probe.chance,
        "picked": None if probe.picked is None else asdict(probe.picked.conventions),
        "candidates": [
            {
                "conventions": asdict(candidate.conventions),
                "agreement": [share for share in (candidate.first, candidate.second) if share is not None],
                "alike": candidate in probe.alike,
                "picked": candidate == probe.picked,
            }
            for candidate in probe.candidates
        ],
    }


def _shares(probe: "Probe") -> str:
    assert probe.picked is not None
    others = len(probe.alike) - 1
    alike = f"; {others} other candidate{'s' * (others > 1)} measure{'s' * (others == 1)} alike" if others else ""
    over = f", then over {probe.num_texts} whole texts" if probe.num_texts else ""
    rows = f"chance {probe.chance:.0%}, {probe.num_tokens} tokens"
    return f"{probe.picked.first:.0%} of first drafts right ({rows}){over}{alike}"


def _mark(probe: "Probe", candidate: "Candidate") -> str:
    if candidate == probe.picked:
        return "✓ picked"
    return "~ alike" if candidate in probe.alike else ""
