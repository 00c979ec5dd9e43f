"""The program `skulk`."""

from typing import TYPE_CHECKING

from cli.program import run_program

if TYPE_CHECKING:
    import typer


def make_app() -> "typer.Typer":
    """The program's commands."""
    import typer

    from cli.bench import bench_command
    from cli.doctor import doctor_command
    from cli.run import run_command
    from cli.version import add_version

    app = typer.Typer(
        name="skulk",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Run open models with their multi-token-prediction heads: the same text, sooner.",
    )
    app.command("run")(run_command)
    app.command("bench")(bench_command)
    app.command("doctor")(doctor_command)

    add_version(app, "skulk")
    return app


def main() -> None:
    """Entry point."""
    run_program(make_app)


if __name__ == "__main__":
    main()
