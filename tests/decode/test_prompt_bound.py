"""A text that was never encoded is refused for its length alone: wrongly, if the bound is not one."""

from typing import Any

import pytest
from demo import demo, prompts
from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer, TokenizerWrapper

from skulk_core.decode.prompt_bound import least_tokens
from skulk_core.decode.session import Session
from skulk_core.errors import ContextError

LONGEST = max(demo().tokenizer.get_vocab(), key=len)


@pytest.mark.parametrize("text", [*prompts(), "", " \n" * 10_000, "e\u0301" * 500, "\U0001f642" * 300, LONGEST * 100])
def test_no_text_has_fewer_tokens(text: str) -> None:
    tokenizer = demo().tokenizer
    assert least_tokens(tokenizer, text) <= len(tokenizer.encode(text))


def test_nothing_is_said_of_other_tokenizers() -> None:
    """They may have one token for whatever they do not know."""
    other: Any = TokenizerWrapper(demo().tokenizer._tokenizer, NaiveStreamingDetokenizer)
    assert least_tokens(other, "x" * 10**6) == 0


def test_what_is_far_too_long_is_refused_without_being_encoded() -> None:
    session = Session(demo(), None)
    session.refuse_what_cannot_fit("word " * 1000, 4096)
    with pytest.raises(ContextError, match=r"^at least \d+ prompt tokens \+ at least 1 new token") as caught:
        session.refuse_what_cannot_fit("word " * 10**6, 4096)
    assert 4096 <= caught.value.prompt_tokens < 10**6
