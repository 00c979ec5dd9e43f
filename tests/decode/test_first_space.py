"""The space that an answer begins with: a continuation without it cannot be put behind its prompt."""

import pytest
from demo import demo
from mlx_lm.tokenizer_utils import SPMStreamingDetokenizer, TokenizerWrapper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from skulk_core.decode.text import TextStream

PROMPT, REST = "Return the number", " of elements, if there are any."


def spm() -> TokenizerWrapper:
    """A tokenizer of the SentencePiece kind: words with their space before them, and bytes."""
    words = ["\u2581Return", "\u2581the", "\u2581number", "\u2581of", "\u2581", "of"]
    vocabulary = {
        word: rank for rank, word in enumerate(["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words])
    }
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    strip = decoders.Strip(content=" ", left=1, right=0)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    return TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=inner), SPMStreamingDetokenizer)


def streamed(tokenizer: TokenizerWrapper, tokens: list[int], *stop: str, continues: bool) -> str:
    out = TextStream(tokenizer, stop, continues=continues)
    pieces = [out.push([token])[0] for token in tokens]
    text = "".join(pieces) + out.finish()
    assert text == out.text
    return text


@pytest.mark.parametrize("continues", [True, False])
def test_of_a_byte_level_tokenizer_it_stays(continues: bool) -> None:
    tokenizer = demo().tokenizer
    prompt, tokens = tokenizer.encode(PROMPT), tokenizer.encode(REST)
    text = streamed(tokenizer, tokens, continues=continues)
    assert text == tokenizer.decode(tokens) == REST
    assert PROMPT + text == tokenizer.decode([*prompt, *tokens])


def test_of_a_sentencepiece_tokenizer_it_stays_where_a_text_goes_on() -> None:
    tokenizer = spm()
    prompt, tokens = tokenizer.encode("Return the"), tokenizer.encode("number of")
    assert "Return the" + streamed(tokenizer, tokens, continues=True) == tokenizer.decode([*prompt, *tokens])
    # an answer is a text of its own
    assert streamed(tokenizer, tokens, continues=False) == tokenizer.decode(tokens) == "number of"


def test_a_stop_string_may_begin_with_it() -> None:
    tokenizer = demo().tokenizer
    assert streamed(tokenizer, tokenizer.encode(REST), " of", continues=True) == ""
    assert streamed(spm(), spm().encode("of the"), " of", continues=True) == ""
