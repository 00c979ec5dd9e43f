"""A chat at a terminal: how it begins and ends, what Ctrl-C does, and what is left of an answer that was stopped."""

import re
import signal
from pathlib import Path

import pytest
from chat_terminal import CTRL_C, CTRL_D, ChatTerminal
from cli_checkpoints import demo_copy
from cli_runner import Program

LONG = ("--max-tokens", "3500")
SHORT = ("--max-tokens", "12")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's checkpoint under a name of its own: with that of the demo, its prompt would begin."""
    return demo_copy(tmp_path_factory.mktemp("models") / "base")


def reused(stderr: str) -> list[tuple[int, int]]:
    """Every prompt that /stats told of: its tokens, and those reused."""
    return [(int(all_), int(held)) for all_, held in re.findall(r"prompt: (\d+) tokens, (\d+) reused", stderr)]


def test_a_model_without_a_prompt_begins_a_chat(skulk: Program, model: Path) -> None:
    chat = ChatTerminal(skulk, "run", model, "--draft-depth", "0", *SHORT)
    chat.wait_for_prompt()
    chat.type("Return the number of elements")
    answer = chat.wait_for_prompt()
    assert "in the" in answer
    # the answer is on the terminal, the figures are not on stdout
    assert "tok/s" not in answer
    chat.type("")
    chat.wait_for_prompt()
    chat.type("/stats")
    chat.wait_for_prompt()
    chat.type("/exit")
    finished = chat.finish()
    assert finished.code == 0
    ((prompt_tokens, held),) = reused(finished.stderr)
    assert held == prompt_tokens - 1 > 12
    assert finished.stderr.count(" tok/s ") == 3  # two answers and /stats


def test_ctrl_c_stops_an_answer_which_is_kept_and_then_leaves(skulk: Program, model: Path) -> None:
    chat = ChatTerminal(skulk, "run", model, "--draft-depth", "0", *LONG)
    chat.wait_for_prompt()
    chat.type("Return the number of elements")
    chat.wait_for_more(200)
    chat.press(CTRL_C)
    chat.wait_for_prompt()
    chat.type("/set max-tokens 5")
    chat.wait_for_prompt()
    chat.type("")
    chat.wait_for_prompt()
    chat.type("/stats")
    chat.wait_for_prompt()
    finished = chat.press_until_it_ends(CTRL_C)
    assert finished.code == 130
    assert "stopped" in finished.stderr
    ((prompt_tokens, held),) = reused(finished.stderr)
    assert held == prompt_tokens - 1 > 20
    # the shell goes on on a line of its own; presses that come after it are echoed by the terminal
    assert "> \r\n" in finished.stdout.replace("^C", "")[-10:]


def test_ctrl_c_again_and_again_leaves_from_an_answer(skulk: Program) -> None:
    chat = ChatTerminal(skulk, "run", "demo", "Return the number of", "--chat", *LONG)
    chat.wait_for_more(100)
    assert chat.press_until_it_ends(CTRL_C).code == 130


def test_a_ctrl_c_that_a_launcher_passes_on_is_one(skulk: Program) -> None:
    """Or `uv run` and its like would leave the chat whenever an answer is stopped."""
    chat = ChatTerminal(skulk, "run", "demo", "Return the number of", "--chat", *LONG)
    chat.wait_for_more(100)
    for _ in range(3):
        chat.process.send_signal(signal.SIGINT)
    chat.wait_for_prompt()
    chat.type("/exit")
    assert chat.finish().code == 0


def test_ctrl_d_leaves_and_a_block_may_be_typed(skulk: Program) -> None:
    chat = ChatTerminal(skulk, "run", "demo", "--chat", *SHORT)
    chat.wait_for_prompt()
    for line in ('"""Return the', "/number"):
        chat.type(line)
        while not chat.shown.endswith(". "):
            chat.wait_for_more(len(line) + 3)
            if not chat.shown.endswith(". "):
                chat._read()
    chat.type('of elements"""')
    assert len(chat.wait_for_prompt()) > len('of elements"""') + 10
    chat.press(CTRL_D)
    finished = chat.finish()
    assert finished.code == 0
    assert "no such command" not in finished.stderr


def test_the_demo_alone_keeps_to_its_own_prompt(skulk: Program) -> None:
    """The README's first command ends by itself, at a terminal too."""
    finished = ChatTerminal(skulk, "run", "demo", *SHORT).finish()
    assert finished.code == 0
    assert finished.stderr.startswith("prompt: The ")
    assert "/help" not in finished.stderr


def test_json_is_one_answer_at_a_terminal_too(skulk: Program, model: Path) -> None:
    finished = ChatTerminal(skulk, "run", model, "--json").finish()
    assert finished.code == 2
    assert "no prompt was given" in finished.stderr
