"""The program `swp`, Skulk Weights Publisher."""

import sys
from typing import TYPE_CHECKING

from cli.arguments import complete
from cli.program import run_program

if TYPE_CHECKING:
    import typer

OPTIONAL_VALUES = ("--org",)  # alone: the login's only organisation


def make_app() -> "typer.Typer":
    """The program's commands."""
    import typer

    from cli import swp_catalog, swp_extract, swp_publish, swp_vindex
    from cli.version import add_version

    app = typer.Typer(
        name="swp",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Extract the multi-token-prediction head of an original checkpoint once, and publish it as a sidecar.",
    )
    for module in (swp_extract, swp_publish, swp_catalog, swp_vindex):
        module.register(app)

    add_version(app, "swp")
    return app


def main() -> None:
    """Entry point."""
    sys.argv[1:] = complete(sys.argv[1:], OPTIONAL_VALUES)
    run_program(make_app)


if __name__ == "__main__":
    main()
