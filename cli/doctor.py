"""`skulk doctor`: what this machine has, what it lacks, and how to get it; how a model's head is wired."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli import options
from cli.doctor_model import examine_head
from cli.errors import guarded
from cli.render import Reporter, out, show
from skulk_core.errors import OptionError
from skulk_core.runtime.doctor import Finding, Report, examine


@guarded
def doctor_command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Measure how the head of this model is wired: `demo`, a checkpoint folder, or a Hub repository. "
            "Default: look at this machine."
        ),
    ] = None,
    sidecar: options.Sidecar = None,
    dtype: options.Dtype = "auto",
    head_precision: options.HeadPrecision = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Tell what this machine computes with, what is missing, and the command that installs it.

    With MODEL: tell which conventions make its draft head agree most with what the model itself writes, and whether the
    head's file or the catalog says the same. Exits with 1 if something is missing, or if no convention is better than
    chance.
    """
    if model is not None:
        reporter = Reporter(quiet=quiet, verbose=False)
        examine_head(
            model, sidecar, dtype=dtype, head_precision=head_precision, json_output=json_output, reporter=reporter
        )
        return
    if sidecar is not None:
        raise OptionError("--sidecar", sidecar, "belongs to a model: skulk doctor MODEL --sidecar ...")
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
