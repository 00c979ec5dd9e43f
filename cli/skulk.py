"""The program `skulk`."""

import sys
from typing import TYPE_CHECKING

from cli.arguments import complete
from cli.program import run_program
from skulk_core.runtime import huge_pages

if TYPE_CHECKING:
    import typer

OPTIONAL_VALUES = ("--peers", "--draft-depth")  # alone: every host of hosts.yaml; the sweep of `bench`

# Commands whose memory is worth starting anew for, and the one that tells of it.
DECODING = ("run", "bench", "tune", "worker", "doctor")


def make_app() -> "typer.Typer":
    """The program's commands."""
    import typer

    from cli.bench import bench_command
    from cli.card import make_card_app
    from cli.doctor import doctor_command
    from cli.host_report import host_report_command
    from cli.peers import peers_command
    from cli.plan import plan_command
    from cli.receive import receive_command
    from cli.run import run_command
    from cli.tune import tune_command
    from cli.version import add_version
    from cli.worker import worker_command

    app = typer.Typer(
        name="skulk",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Run open models with their multi-token-prediction heads: the same text, sooner.",
    )
    app.command("run")(run_command)
    app.command("bench")(bench_command)
    app.command("tune")(tune_command)
    app.add_typer(make_card_app(), name="card")
    app.command("doctor")(doctor_command)
    app.command("peers")(peers_command)
    app.command("plan")(plan_command)
    app.command("host-report", hidden=True)(host_report_command)
    app.command("receive", hidden=True)(receive_command)
    app.command("worker", hidden=True)(worker_command)

    add_version(app, "skulk")
    return app


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] and sys.argv[1] in DECODING:
        huge_pages.restart()
    sys.argv[1:] = complete(sys.argv[1:], OPTIONAL_VALUES)
    run_program(make_app)


if __name__ == "__main__":
    main()
