"""`skulk host-report`: what this host says of itself, for the host that plans. Started by it, not by people."""

import os
import sys
from typing import Annotated

import typer

from cli.errors import guarded


@guarded
def host_report_command(
    model: Annotated[str | None, typer.Option(help="Tell which files of this model are here.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time a product of one row.")] = False,
) -> None:
    """Report versions, device, memory and links in a frame on stdout."""
    # what libraries print while they are imported is no part of the frame
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from skulk_core.cluster.frames import START_MARKER, write_frame
    from skulk_core.cluster.report import say_report

    frame = say_report(model, measure=measure)
    answer.write(START_MARKER)
    write_frame(answer, frame)
