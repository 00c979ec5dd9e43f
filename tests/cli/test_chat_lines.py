"""A chat fed from a pipe, line by line: what is said, what is asked for, and what is wrong with it."""

import json
from pathlib import Path

import pytest
from cli_checkpoints import demo_copy
from cli_runner import Finished, in_process
from typer.testing import CliRunner

from cli.skulk import make_app

SAID = "Return the number of elements"
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'user' %}Question: {{ message.content }}\n"
    "{% else %}Answer: {{ message.content }}\n{% endif %}{% endfor %}Answer:"
)


def chat(lines: str | bytes, *options: str | Path, model: str | Path = "demo") -> Finished:
    arguments = ["run", str(model), "--chat", *map(str, options)]
    result = CliRunner().invoke(make_app(), arguments, input=lines, catch_exceptions=False)
    return Finished(result.exit_code, result.stdout, result.stderr)


def once(prompt: str, num_tokens: int, *options: str) -> str:
    text = in_process("run", "demo", prompt, "--max-tokens", str(num_tokens), "--json", *options).answer["text"]
    assert isinstance(text, str)
    return text


def words(text: str) -> str:
    """The text without its spaces: the first of an answer is not shown."""
    return "".join(text.split())


def test_the_text_goes_on_as_if_it_had_never_been_cut() -> None:
    finished = chat(f"{SAID}\n\n\n", "--max-tokens", "10")
    assert finished.code == 0
    assert words(finished.stdout) == words(once(SAID, 30))
    assert finished.stdout.startswith(once(SAID, 10) + "\n")
    # on a pipe nobody sees a prompt
    assert "> " not in finished.stderr


def test_what_was_given_as_the_prompt_is_said_first() -> None:
    finished = chat("", SAID, "--max-tokens", "10")
    assert (finished.code, finished.stdout) == (0, once(SAID, 10) + "\n")
    quiet = chat("", SAID, "--max-tokens", "10", "--quiet")
    assert quiet == Finished(0, finished.stdout, "")


@pytest.mark.parametrize(
    "lines",
    ['"""Return the\nnumber of\\\n/elements"""\n', '"""\nReturn the\nnumber of\\\n/elements\n"""\n'],
)
def test_a_block_is_taken_as_it_stands(lines: str) -> None:
    assert chat(lines, "--max-tokens", "8").stdout == once("Return the\nnumber of\\\n/elements", 8) + "\n"


def test_a_block_that_nobody_closes_is_told() -> None:
    """A pipe that ends too soon would look answered: nothing was said, and nothing complained."""
    finished = chat(f'{SAID}\n"""Return the\nnumber\n', "--max-tokens", "8")
    assert finished.stdout == once(SAID, 8) + "\n"
    assert "was not closed" in finished.stderr


def test_a_backslash_continues_a_line() -> None:
    assert chat(f"{SAID}\\", "--max-tokens", "8").stdout == once(SAID, 8) + "\n"
    assert chat("Return the\\\nnumber\n", "--max-tokens", "8").stdout == once("Return the\nnumber", 8) + "\n"


def test_through_the_chat_template(tmp_path: Path) -> None:
    model = demo_copy(tmp_path / "instruct")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    finished = chat("What is a list?\n\n/stats\nAnd a tuple?\n/stats\n", "--max-tokens", "8", model=model)
    assert finished.code == 0
    # an empty line says nothing
    assert finished.stderr.count("cut after") == 2
    first, second = [line for line in finished.stderr.splitlines() if line.startswith("prompt: ")]
    assert ", 0 reused" in first
    read = int(first.split()[1])
    assert f", {read + 7} reused" in second
    plain = chat("What is a list?\n", "--max-tokens", "8", "--raw", model=model)
    assert plain.stdout != finished.stdout.splitlines()[0] + "\n"


def test_a_full_context_is_told_and_nothing_is_lost() -> None:
    finished = chat(f"{SAID}\n{SAID * 9}\n/stats\n/reset\n{SAID}\n", "--context", "40", "--max-tokens", "20")
    assert finished.code == 0
    assert "more than a context of 40 tokens" in finished.stderr
    assert "/reset begins a new conversation" in finished.stderr
    prompt_tokens = in_process("run", "demo", SAID, "--max-tokens", "1", "--json").answer["stats"]["prompt_tokens"]
    assert f"conversation: {prompt_tokens + 20} of 40 tokens" in finished.stderr
    assert finished.stdout == 2 * (once(SAID, 20) + "\n")
    # an answer may take what is left
    shorter = chat(f"{SAID}\n\n", "--context", "40", "--max-tokens", "20")
    assert words(shorter.stdout) == words(once(SAID, 40 - prompt_tokens))
    assert "the context of 40 tokens is full" in shorter.stderr


def test_stop_strings_and_certificates() -> None:
    text = once(SAID, 30)
    stop = text[20:24]
    finished = chat(f"{SAID}\n", "--max-tokens", "30", "--stop", stop, "--certify")
    assert finished.stdout == text[: text.index(stop)] + "\n"
    assert "certificate: all " in finished.stderr
    second = chat(f"{SAID}\n\n/set temperature 0.5\n", "--max-tokens", "10", "--certify")
    # the second answer was decoded with the caches of the first, and plain decoding afresh agrees
    assert second.stderr.count("certificate: all 10 tokens") == 2
    assert "--temperature 0.5: drawn tokens cannot be compared" in second.stderr


def test_settings_change_what_is_decoded() -> None:
    drawn = chat(f"/set temperature 0.9\n/set seed 7\n/set top-k 40\n{SAID}\n", "--max-tokens", "20")
    assert drawn.stdout == once(SAID, 20, "--temperature", "0.9", "--seed", "7", "--top-k", "40") + "\n"
    plain = chat(f"/depth 0\n/set max-tokens 12\n{SAID}\n/depth 2\n\n/depth\n", "--max-tokens", "30")
    assert words(plain.stdout) == words(once(SAID, 24))
    assert " · depth 0: plain decoding was asked for" in plain.stderr
    assert " · depth 2" in plain.stderr
    assert plain.stderr.endswith("depth 2\n")


def test_depth_auto_in_mid_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring what rounds cost uses the head: what it had read must be read again, or acceptance would suffer."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    finished = chat(f"{SAID}\n/depth auto\n\n/stats\n\n/stats\n", "--max-tokens", "10")
    assert words(finished.stdout) == words(once(SAID, 30))
    assert "depth auto" in finished.stderr
    again, after = [line for line in finished.stderr.splitlines() if line.startswith("prompt: ")]
    assert ", 0 reused" in again
    assert f", {int(again.split()[1]) + 9} reused" in after


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/stat", "no such command (did you mean 'stats'?)"),
        ("/frobnicate", "command /frobnicate: no such command"),
        ("/set temprature 1", "no such setting (did you mean '--temperature'?)"),
        ("/set temperature warm", "--temperature warm: not a number"),
        ("/set temperature", '--temperature "": not a number'),
        ("/set top-p 2", "--top-p 2.0: must be above 0 and at most 1"),
        ("/set top-k 2.5", "--top-k 2.5: not a number"),
        ("/set logit-bias 5", "must be ID=BIAS"),
        ("/set accept blok", "(did you mean 'block'?)"),
        ("/set max-tokens 0", "--max-tokens 0: must be at least 1"),
        ("/depth -1", "must be at least 0"),
        ("/depth some", "--draft-depth some: must be a number or auto"),
    ],
)
def test_what_is_wrong_is_told_and_the_chat_goes_on(line: str, said: str) -> None:
    finished = chat(f"{line}\n/show\n", "--draft-depth", "3")
    assert finished.code == 0
    assert said in finished.stderr
    assert "depth               3" in finished.stderr
    assert "temperature         0.0" in finished.stderr


def test_no_depth_without_a_head() -> None:
    finished = chat("/depth 2\n/depth 0\n/depth\n", "--draft-depth", "0")
    assert "/depth 2: nothing can be drafted here (plain decoding was asked for)" in finished.stderr
    assert finished.stderr.endswith("depth 0\n")


def test_what_is_not_text() -> None:
    finished = chat(b"\xff\xfe\n" + SAID.encode() + b"\n", "--max-tokens", "5")
    assert "stdin is not UTF-8 text: byte 0xff" in finished.stderr
    assert finished.stdout == once(SAID, 5) + "\n"


def test_what_a_chat_cannot_be() -> None:
    chat("", "--json").assert_fails(2, "--json prints one answer")
    chat("", "-").assert_fails(2, "stdin")
    in_process("run", "demo", "", "--json").assert_fails(2, "the prompt is empty")


def test_every_sampling_setting_can_be_set_and_shown() -> None:
    """A setting that is added must not be forgotten here."""
    settings = json.loads(in_process("run", "demo", SAID, "--max-tokens", "1", "--json").stdout)["sampling"]
    values = {"logit_bias": "5=-1 6=-inf", "accept": "token", "seed": "3", "top_k": "4"}
    lines = [f"/set {name.replace('_', '-')} {values.get(name, '0.5')}\n" for name in settings]
    finished = chat("".join([*lines, "/show\n/help\n/reset\n"]))
    assert "error" not in finished.stderr
    shown = dict(line.split("  ", 1) for line in finished.stderr.splitlines() if "  " in line)
    for name in settings:
        assert shown[name.replace("_", "-")].strip() == values.get(name, "0.5")
    for command in ("/stats", "/depth N|auto", "/set NAME VALUE", "/reset", "/exit"):
        assert command in finished.stderr
