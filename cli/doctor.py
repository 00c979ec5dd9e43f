"""`skulk doctor`: what this machine has, what it lacks, and how to get it; how a model's head is wired."""

from typing import Annotated

import typer

from cli import options
from cli.doctor_model import examine_head
from cli.errors import guarded
from cli.findings import show_report
from cli.render import Reporter
from skulk_core.errors import OptionError
from skulk_core.runtime.doctor import examine


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
    show_report(examine(), json_output)
