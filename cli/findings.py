"""What a doctor found, as a table or as JSON, and as an exit status."""

import json
from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from cli.program import EXIT_FAILED
from cli.render import out, show, visible
from skulk_core.types import Report


def show_report(report: Report, json_output: bool) -> None:
    """Print the report; `typer.Exit` with 1 if something should be done about it."""
    if json_output:
        out(json.dumps({"ok": report.ok, "findings": [asdict(finding) for finding in report.findings]}) + "\n")
    else:
        show(_table(report))
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


def _table(report: Report) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in report.findings:
        mark = Text("✓", style="green") if finding.ok else Text("✗", style="red")
        table.add_row(mark, finding.name, Text(visible(finding.value)))
        if finding.advice is not None:
            table.add_row("", "", Text(f"→ {finding.advice}", style="" if finding.ok else "yellow"))
    return table
