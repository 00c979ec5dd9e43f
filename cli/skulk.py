"""The program `skulk`."""

from typing import TYPE_CHECKING, Annotated

from cli.program import run_program

if TYPE_CHECKING:
    import typer


def make_app() -> "typer.Typer":
    """The program's commands."""
    import typer

    from cli.bench import bench_command
    from cli.doctor import doctor_command
    from cli.errors import guarded
    from cli.render import out
    from cli.run import run_command
    from skulk_core.runtime.device import versions

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

    @guarded
    def print_version(asked: bool) -> None:
        if asked:
            out(f"skulk {versions()['skulk-mtp'] or '(a checkout that is not installed)'}\n")
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
    run_program(make_app)


if __name__ == "__main__":
    main()
