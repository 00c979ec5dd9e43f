"""The program `swp`, Skulk Weights Publisher."""

import sys
from typing import TYPE_CHECKING, Annotated

from cli.arguments import complete
from cli.program import run_program

if TYPE_CHECKING:
    import typer

OPTIONAL_VALUES = ("--org",)  # alone: the login's only organisation


def make_app() -> "typer.Typer":
    """The program's commands."""
    import typer

    from cli import swp_catalog, swp_extract, swp_publish, swp_vindex
    from cli.errors import guarded
    from cli.render import out
    from skulk_core.runtime.device import versions

    app = typer.Typer(
        name="swp",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Extract the multi-token-prediction head of an original checkpoint once, and publish it as a sidecar.",
    )
    for module in (swp_extract, swp_publish, swp_catalog, swp_vindex):
        module.register(app)

    @guarded
    def print_version(asked: bool) -> None:
        if asked:
            out(f"swp {versions()['skulk-mtp'] or '(a checkout that is not installed)'}\n")
            raise typer.Exit

    @app.callback()
    def common(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=print_version)
        ] = False,
    ) -> None:
        """Options before the command."""

    return app


def main() -> None:
    """Entry point."""
    sys.argv[1:] = complete(sys.argv[1:], OPTIONAL_VALUES)
    run_program(make_app)


if __name__ == "__main__":
    main()
