"""A benchmark on a terminal: while it runs, and when it is done."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table as Drawn
from rich.text import Text

from cli.render import out, show, visible
from skulk_core.bench.tables import (
    Table,
    cases_table,
    costs_table,
    facts,
    live_rows,
    notes,
    number,
    ring_table,
    speed_table,
    split_table,
    work_table,
)

if TYPE_CHECKING:
    from skulk_core.bench.arms import CaseRun
    from skulk_core.formats.receipt import Receipt


def live_table(case: "CaseRun") -> Drawn:
    """Speeds so far, arm by arm."""
    drawn = Drawn(title=Text(visible(case.workload.name)), title_justify="left")
    for name, right in (("arm", False), ("texts", True), ("tok/s", True), ("× depth 0", True), ("a round", True)):
        drawn.add_column(name, justify="right" if right else "left")
    arms = [arm for arm in case.arms if arm.skipped is None]
    speeds = [1 / arm.median_s_per_token if arm.median_s_per_token else None for arm in arms]
    plain = case.reference.median_s_per_token
    rows = live_rows([arm.spec.name for arm in arms], speeds, 1 / plain if plain else None)
    for arm, (name, speed, ratio) in zip(arms, rows, strict=True):
        per_round = number(arm.tokens / arm.rounds, 2) if arm.rounds else ""
        drawn.add_row(Text(visible(name)), str(len(arm.samples)), speed, ratio, per_round)
    return drawn


def show_receipt(receipt: "Receipt") -> None:
    """Everything a receipt tells, on stdout."""
    for name, value in facts(receipt):
        out(visible(f"{name:>17}  {value}") + "\n")
    for case in receipt.cases:
        out("\n")
        show(_drawn(speed_table(case), case.name))
        for note in notes(case):
            out(visible(note) + "\n")
        show(_drawn(work_table(case), "what it took"))
        ring = ring_table(case)
        if ring.rows:
            show(_drawn(ring, "between the hosts in a round, and what each needed"))
        costs = costs_table(case)
        if costs.rows:
            show(_drawn(costs, "what the parts of a round cost by themselves, ms"))
        split = split_table(case)
        if split.rows:
            show(_drawn(split, "where the time goes, with a barrier after every part"))
    if len(receipt.cases) > 1:
        out("\n")
        show(_drawn(cases_table(receipt), "all cases"))
    if not receipt.complete:
        out(visible(f"INCOMPLETE: {receipt.why_incomplete}; these are the figures until then") + "\n")


def _drawn(table: Table, title: str) -> Drawn:
    drawn = Drawn(title=Text(visible(title)), title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    for at, (name, right) in enumerate(table.columns):
        # what does not fit is folded between words: a figure without its end would be another figure
        texts = (name, *(row[at] for row in table.rows))
        least = max((len(word) for text in texts for word in visible(text).split()), default=0)
        drawn.add_column(Text(visible(name)), justify="right" if right else "left", min_width=least, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    return drawn
