"""What `--help` says: every option, and what happens without it."""

import inspect
import re
from typing import Any, get_args

import pytest
from cli_runner import Program, in_process
from typer.main import get_command

from cli import options
from cli.skulk import make_app


def said(*arguments: str) -> str:
    """A help text as one line of words."""
    shown = in_process(*arguments, "--help")
    assert (shown.code, shown.stderr) == (0, "")
    return " ".join(re.sub("[│╭╮╰╯─]", " ", shown.stdout).split())


COMMANDS: dict[str, Any] = get_command(make_app()).commands  # type: ignore[attr-defined]


def test_every_command_is_listed() -> None:
    text = said()
    for name, command in COMMANDS.items():
        assert name in text
        assert inspect.getdoc(command.callback)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_and_says_its_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = said(name)
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name != "option":
            continue
        assert parameter.help
        assert max(parameter.opts, key=len) in text
        takes_value = not parameter.is_flag
        if takes_value:
            assert parameter.show_default or "efault" in parameter.help, parameter.opts


def test_revisions_are_not_taken_for_markup() -> None:
    assert "OWNER/NAME@REVISION" in said("run")


def test_what_may_be_said_of_dtypes_is_what_the_core_offers() -> None:
    from skulk_core.heads.loading import PRECISIONS
    from skulk_core.models.loading import DTYPES

    assert set(choices(options.Dtype)) == {"auto", *DTYPES}
    assert set(choices(options.HeadPrecision)) == set(PRECISIONS)


def choices(annotated: Any) -> tuple[str, ...]:
    literal, option = get_args(annotated)
    offered: tuple[str, ...] = get_args(literal)
    assert all(choice in option.help for choice in offered)
    return offered


def test_the_version(skulk: Program) -> None:
    finished = skulk.run("--version")
    assert finished.code == 0
    assert finished.stdout.startswith("skulk ")
    assert len(finished.stdout.splitlines()) == 1
