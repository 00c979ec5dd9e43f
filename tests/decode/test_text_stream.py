"""Text as it is shown, with mlx-lm's other way of making text of tokens, and in the corners of stop strings."""

from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer
from mlx_lm.utils import load_tokenizer

from skulk_core.decode.text import TextStream
from skulk_core.runtime.resources import demo_folder

TEXT = "naïve — 日本語 🎉👩‍🚀, done.\n  next"


def stream(text: str, *stop: str) -> tuple[list[str], TextStream]:
    """The pieces that come of ``text`` token by token, the end included."""
    tokenizer = load_tokenizer(demo_folder(), eos_token_ids=0)
    tokenizer._detokenizer_class = NaiveStreamingDetokenizer
    out = TextStream(tokenizer, stop)
    pieces = [out.push([token])[0] for token in tokenizer.encode(text)]
    return [*pieces, out.finish()], out


def test_whole_characters_where_all_is_decoded_again_and_again() -> None:
    pieces, out = stream(TEXT)
    assert "".join(pieces) == out.text == TEXT
    assert not any("\ufffd" in piece for piece in pieces)
    assert sum(map(bool, pieces)) > 10  # and not all at the end


def test_nothing_of_a_stop_string_there_either() -> None:
    pieces, out = stream(TEXT, "no such text", "語 🎉")
    assert "".join(pieces) == out.text == TEXT[: TEXT.index("語")]


def test_a_stop_string_that_begins_inside_its_own_beginning() -> None:
    assert stream("x aaaaab y", "aaab")[1].text == "x aa"


def test_tokens_after_a_stop_string_are_not_taken() -> None:
    tokenizer = load_tokenizer(demo_folder(), eos_token_ids=0)
    tokens = tokenizer.encode(TEXT)
    together, apart = TextStream(tokenizer, ("done",)), TextStream(tokenizer, ("done",))
    _, num_taken = together.push(tokens)
    assert num_taken == sum(apart.push([token])[1] for token in tokens) < len(tokens)
    assert together.text == apart.text
