"""What a terminal shows beside the answer: progress that leaves no trace, and no colours where none are wanted."""

from cli_runner import Finished, OnTerminal, Program

from skulk_core.decode.decoder import PREFILL_ROWS

ESCAPE = "\x1b"


def on_terminal(skulk: Program, *arguments: str, **settings: str) -> Finished:
    finished = OnTerminal(skulk, "run", *arguments, **settings).finish()
    assert "Traceback" not in finished.stderr
    return finished


def test_progress_of_loading_and_of_a_long_prompt_on_a_terminal_only(skulk: Program) -> None:
    arguments = ("demo", " word" * 2200, "--max-tokens", "2")
    shown = on_terminal(skulk, *arguments)
    assert shown.code == 0
    assert "loading demo" in shown.stderr
    assert f"{PREFILL_ROWS}/2200 tokens" in shown.stderr
    piped = skulk.run("run", *arguments, FORCE_COLOR="1")
    assert piped.stdout == shown.stdout
    assert len(piped.stderr.splitlines()) == 1
    assert ESCAPE not in piped.stderr


def test_a_terminal_that_can_only_print(skulk: Program) -> None:
    shown = on_terminal(skulk, "demo", "hi", "--max-tokens", "2", TERM="dumb")
    assert ESCAPE not in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_colours_unless_they_are_not_wanted(skulk: Program) -> None:
    assert f"{ESCAPE}[1;31merror:" in on_terminal(skulk, "demo", "").stderr
    assert f"{ESCAPE}[1;31m" not in on_terminal(skulk, "demo", "", NO_COLOR="1").stderr


def test_quiet_on_a_terminal(skulk: Program) -> None:
    assert on_terminal(skulk, "demo", "hi", "--max-tokens", "2", "--quiet").stderr == ""
