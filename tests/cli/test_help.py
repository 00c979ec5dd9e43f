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


def commands_of(group: Any, *path: str) -> dict[tuple[str, ...], Any]:
    """Every command by its words, those of groups too."""
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found |= commands_of(command, *path, name) if inner else {(*path, name): command}
    return found


COMMANDS = commands_of(get_command(make_app()))


def test_every_command_is_listed() -> None:
    for (*group, name), command in COMMANDS.items():
        # those that other programs start are for nobody to read about
        assert (name in said(*group).split()) is not command.hidden
        assert inspect.getdoc(command.callback)


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_option_is_explained_and_says_its_default(name: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = said(*name)
    for parameter in COMMANDS[name].params:
        # what is hidden is there to be refused in words
        if parameter.param_type_name != "option" or parameter.hidden:
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
