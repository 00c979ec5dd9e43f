"""A receipt as a report: Markdown, and one HTML page that needs nothing beside it."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skulk_core.bench.plots import plots
from skulk_core.bench.tables import (
    Table,
    cases_table,
    costs_table,
    facts,
    notes,
    ring_table,
    speed_table,
    split_table,
    work_table,
)
from skulk_core.formats.receipt import Receipt
from skulk_core.runtime.resources import templates_folder

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!&~]|(?<=http)s?:|(?<=www)\.)", re.IGNORECASE)


def html_report(receipt: Receipt) -> str:
    """The page. Every value in it is escaped; it loads nothing and runs nothing."""
    return _environment().get_template("bench_report.html.j2").render(_values(receipt)) + "\n"


def markdown_report(receipt: Receipt) -> str:
    """The same without plots."""
    values = _values(receipt)
    lines = [f"# {in_markdown(values['title'])}", ""]
    if not receipt.complete:
        why = in_markdown(receipt.why_incomplete)
        lines += [f"**Incomplete:** {why}; these are the figures until then.", ""]
    lines += [markdown_table(Table((("", False), ("", False)), tuple(facts(receipt)))), ""]
    if len(receipt.cases) > 1:
        lines += ["## All cases", "", markdown_table(cases_table(receipt)), ""]
    for case in values["cases"]:
        lines += [f"## {in_markdown(case['name'])}", "", markdown_table(case["speed"]), ""]
        lines += [in_markdown(" ".join(case["notes"])), "", "What it took:", "", markdown_table(case["work"]), ""]
        if case["ring"].rows:
            lines += ["Between the hosts in a round, and what each needed:", "", markdown_table(case["ring"]), ""]
        if case["costs"].rows:
            lines += ["What the parts of a round cost by themselves, ms:", "", markdown_table(case["costs"]), ""]
        if case["split"].rows:
            lines += ["Where the time goes, with a barrier after every part:", "", markdown_table(case["split"]), ""]
    return "\n".join(lines)


def markdown_table(table: Table) -> str:
    """A table of GitHub's Markdown, without a line break at its end."""
    names = " | ".join(in_markdown(name) for name, _ in table.columns)
    rules = "|".join("---:" if right else "---" for _, right in table.columns)
    rows = [" | ".join(in_markdown(cell) for cell in row) for row in table.rows]
    return "\n".join([f"| {names} |", f"|{rules}|", *(f"| {row} |" for row in rows)])


def in_markdown(text: str) -> str:
    """``text`` on one line, with everything escaped that Markdown would take for more than text."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return _MARKUP.sub(lambda match: "\\" + match[0] if match[0][0] not in "sS" else match[0][0] + "\\:", shown)


def _values(receipt: Receipt) -> dict[str, Any]:
    best = max(
        (figures.median for case in receipt.cases if (arm := case.best) and (figures := case.figures(arm).speedup)),
        default=None,
    )
    return {
        "title": f"skulk bench: {receipt.model.name}",
        "receipt": receipt,
        "facts": facts(receipt),
        "best": best,
        "all_cases": cases_table(receipt) if len(receipt.cases) > 1 else None,
        "cases": [
            {
                "name": case.name,
                "speed": speed_table(case),
                "work": work_table(case),
                "ring": ring_table(case),
                "costs": costs_table(case),
                "split": split_table(case),
                "notes": notes(case),
                "plots": plots(case),
            }
            for case in receipt.cases
        ],
    }


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(templates_folder()),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
