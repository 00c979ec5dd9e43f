"""Standard streams that are closed, full or in another encoding, and what may be written to which."""

from pathlib import Path

import pytest
from cli_runner import Finished, Program, in_process

FAILED, CLOSED_PIPE = 1, 141
SHORT = ("run", "demo", "hi", "--max-tokens", "3")

SCRIPTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "reader gone": ('"$@" | head -c 1; exit ${PIPESTATUS[0]}', ("run", "demo", "hi", "--max-tokens", "3500")),
    "stdout closed": ('"$@" >&-', SHORT),
    "stdout full": ('"$@" >/dev/full', SHORT),
    "stderr closed": ('"$@" 2>&-', SHORT),
    "stderr full": ('"$@" 2>/dev/full', SHORT),
    "stderr's reader gone": ('"$@" 2> >(true)', (*SHORT, "-v")),
    "stdin closed": ('"$@" <&-', ("run", "demo", "-")),
    "stdin not for reading": ('"$@" 0>/dev/null', ("run", "demo", "-")),
    "all closed": ('"$@" <&- >&- 2>&-', SHORT),
    "version, stdout closed": ('"$@" >&-', ("--version",)),
    "help, stdout full": ('"$@" >/dev/full', ("run", "--help")),
    "doctor, stdout full": ('"$@" >/dev/full', ("doctor",)),
}


@pytest.fixture(scope="module")
def finished(skulk: Program) -> dict[str, Finished]:
    return skulk.shell_all(SCRIPTS)


def test_a_reader_that_has_seen_enough(finished: dict[str, Finished]) -> None:
    result = finished["reader gone"]
    assert (result.code, len(result.stdout), result.stderr) == (CLOSED_PIPE, 1, "")


@pytest.mark.parametrize("what", [what for what in SCRIPTS if "stdout" in what])
def test_an_answer_that_cannot_be_written_is_an_error(finished: dict[str, Finished], what: str) -> None:
    reason = "No space left on device" if "full" in what else "Bad file descriptor"
    finished[what].assert_fails(FAILED, f"stdout cannot be written: {reason}")


@pytest.mark.parametrize("what", ["stderr closed", "stderr full", "stderr's reader gone"])
def test_messages_that_cannot_be_written_cost_no_answer(finished: dict[str, Finished], what: str) -> None:
    result = finished[what]
    assert (result.code, result.stderr) == (0, "")
    assert len(result.stdout) > 1


@pytest.mark.parametrize("what", ["stdin closed", "stdin not for reading"])
def test_a_prompt_from_a_stdin_that_is_none(finished: dict[str, Finished], what: str) -> None:
    finished[what].assert_fails(2, "the prompt is empty" if what == "stdin closed" else "stdin cannot be read")


def test_nothing_to_write_to_at_all(finished: dict[str, Finished]) -> None:
    assert finished["all closed"].code == FAILED


def test_an_encoding_that_lacks_the_characters(skulk: Program, plain_llama: Path) -> None:
    # a random model's text is full of them
    command = ("run", plain_llama, "hi", "--max-tokens", "60")
    odd = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TERM": "dumb", "NO_COLOR": "1"}
    usual, ascii_only, data = in_process(*command), skulk.run(*command, **odd), in_process(*command, "--json")
    assert not usual.stdout.isascii()
    assert usual.stdout == data.answer["text"] + "\n"
    assert (ascii_only.code, ascii_only.stderr.isascii()) == (0, True)
    assert ascii_only.stdout == "".join(c if c.isascii() else "?" for c in usual.stdout)
    assert data.stdout.isascii()
