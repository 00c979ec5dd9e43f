"""`skulk doctor`: what this machine has, what it lacks, and how to get it."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.errors import guarded
from cli.render import out, show
from skulk_core.runtime.doctor import Finding, Report, examine


@guarded
def doctor_command(
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Tell what this machine computes with, what is missing, and the command that installs it.

    Exits with 1 if something that should be there is missing.
    """
    report = examine()
    if json_output:
        out(json.dumps({"ok": report.ok, "findings": [asdict(finding) for finding in report.findings]}) + "\n")
    else:
        show(_table(report))
    if not report.ok:
        raise typer.Exit(1)


def _table(report: Report) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in report.findings:
        table.add_row(_mark(finding), finding.name, Text(finding.value))
        if finding.advice is not None:
            table.add_row("", "", Text(f"→ {finding.advice}", style="" if finding.ok else "yellow"))
    return table


def _mark(finding: Finding) -> Text:
    return Text("✓", style="green") if finding.ok else Text("✗", style="red")
