"""The program `skulk`."""

import sys
from importlib import metadata
from typing import Annotated

import typer

from cli.doctor import doctor_command
from cli.run import run_command

app = typer.Typer(
    name="skulk",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run open models with their multi-token-prediction heads: the same text, sooner.",
)
app.command("run")(run_command)
app.command("doctor")(doctor_command)


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    """Options before the command."""
    if version:
        print(f"skulk {metadata.version('skulk-mtp')}")
        raise typer.Exit


def main() -> None:
    """Entry point."""
    # what cannot be encoded on this terminal must not end a run
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()


if __name__ == "__main__":
    main()
