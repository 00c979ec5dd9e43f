"""`--version`, alike in both programs."""

from typing import Annotated

import typer

from cli.errors import guarded
from cli.render import out
from skulk_core.runtime.device import versions


def add_version(app: typer.Typer, program: str) -> None:
    """Give ``app`` the option before its commands."""

    @guarded
    def print_version(asked: bool) -> None:
        if asked:
            out(f"{program} {versions()['skulk-mtp'] or '(a checkout that is not installed)'}\n")
            raise typer.Exit

    @app.callback()
    def common(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=print_version)
        ] = False,
    ) -> None:
        """Options before the command."""
