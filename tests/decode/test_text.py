"""What reaches the screen: whole characters, and nothing of a stop string."""

import pytest
from demo import demo, prompts

from skulk_core.decode.text import TextStream

TEXT = "Größe: 5 €, naïve “quotes”, 東京, 🙂🙂 and\n\ttabs"


def stream(text: str, stop: tuple[str, ...] = (), at_once: int = 1) -> tuple[list[str], TextStream]:
    """Pieces as they come out for the tokens of ``text``, ``at_once`` tokens a push."""
    tokens = demo().tokenizer.encode(text)
    out = TextStream(demo().tokenizer, stop)
    pieces = [out.push(tokens[start : start + at_once])[0] for start in range(0, len(tokens), at_once)]
    return [*pieces, out.finish()], out


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 1000])
def test_pieces_are_whole_characters_and_add_up(at_once: int) -> None:
    pieces, out = stream(TEXT, at_once=at_once)
    assert "".join(pieces) == TEXT == out.text
    assert not any("\ufffd" in piece for piece in pieces)


def test_text_comes_before_its_end() -> None:
    pieces, _ = stream(prompts()[0])
    assert sum(bool(piece) for piece in pieces) > 5


@pytest.mark.parametrize("stop", ["€", "quotes", "e “q", "東", "🙂🙂", ": 5", "\n\t"])
@pytest.mark.parametrize("at_once", [1, 4])
def test_a_stop_string_ends_the_text_before_it(stop: str, at_once: int) -> None:
    """Wherever its characters fall among tokens."""
    pieces, out = stream(TEXT, (stop,), at_once)
    assert out.stopped
    assert "".join(pieces) == TEXT[: TEXT.index(stop)] == out.text


def test_the_first_of_several_stop_strings_counts() -> None:
    _, out = stream(TEXT, ("tabs", "naïve", "quotes"))
    assert out.text == TEXT[: TEXT.index("naïve")]


@pytest.mark.parametrize("stop", ["tabsX", "5 €, naïve!", "Größer"])
def test_what_only_looked_like_a_stop_string_comes_out(stop: str) -> None:
    pieces, out = stream(TEXT, (stop,))
    assert not out.stopped
    assert "".join(pieces) == TEXT


def test_an_incomplete_character_at_the_end_is_shown_as_one() -> None:
    tokens = demo().tokenizer.encode("a🙂")
    out = TextStream(demo().tokenizer)
    text = out.push(tokens[:-1])[0] + out.finish()
    assert text.startswith("a")
    assert "\ufffd" in text
