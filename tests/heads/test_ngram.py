"""Prompt lookup: what followed before is drafted, on any model, and the text stays the same."""

import mlx.core as mx
import pytest
from demo import demo, prompts

from skulk_core.decode.decoder import Decoder
from skulk_core.heads.ngram import NgramHead
from skulk_core.models.base import Hidden
from skulk_core.sampling.base import Place
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler

NOTHING = Hidden(mx.zeros((0,)), mx.zeros((0,)))


def after(text: list[int], depth: int) -> list[int]:
    head = NgramHead()
    head.ingest(NOTHING, mx.array(text, mx.int32))
    return head.draft(depth, GreedySampler(), Place(len(text))).tokens.tolist()  # type: ignore[return-value]


def test_what_followed_the_longest_and_latest_match_is_drafted() -> None:
    assert after([1, 2, 3, 4, 9, 1, 2, 3], 3) == [4, 9, 1]
    assert after([1, 2, 7, 5, 1, 2, 8, 6, 1, 2], 2) == [8, 6]
    # three tokens say more than two, though two stood later
    assert after([1, 2, 3, 7, 0, 2, 3, 8, 0, 1, 2, 3], 1) == [7]


def test_a_text_without_repetition_drafts_nothing() -> None:
    assert after([1, 2, 3, 4, 5], 4) == []
    assert after([1], 4) == []


def test_a_repetition_at_the_very_end_is_no_match_with_itself() -> None:
    assert after([5, 6, 5, 6], 4) == [5, 6]


def test_refused_pairs_are_forgotten() -> None:
    head = NgramHead()
    head.ingest(NOTHING, mx.array([1, 2, 3, 4, 1], mx.int32))
    head.observe(NOTHING, mx.array([2, 9, 9], mx.int32))
    head.commit(1)
    assert head.draft(2, GreedySampler(), Place(6)).tokens.tolist() == [3, 4]
    head.reset()
    assert head.draft(2, GreedySampler(), Place(0)).depth == 0


@pytest.mark.parametrize("depth", [1, 3, 6])
def test_the_text_is_that_of_plain_decoding(depth: int) -> None:
    prompt = demo().tokenizer.encode(prompts()[4])

    def decode(depth: int) -> tuple[list[int], Decoder]:
        decoder = Decoder(demo().target, NgramHead() if depth else None, GreedySampler())
        tokens = [decoder.prefill(prompt, depth)]
        for round_ in decoder.rounds(199):
            tokens += round_.tokens
        return tokens, decoder

    tokens, decoder = decode(depth)
    assert tokens == decode(0)[0]
    assert decoder.stats.accepted > 20
    assert decoder.stats.synchronisations == decoder.stats.rounds + 1


def test_a_temperature_draws_on_with_it() -> None:
    """A drafted token that was not drawn is judged as if it had had all the mass."""
    settings = SamplingSettings(temperature=0.4, seed=3)
    decoder = Decoder(demo().target, NgramHead(), make_sampler(settings))
    tokens = [decoder.prefill(demo().tokenizer.encode(prompts()[4]), 3)]
    for round_ in decoder.rounds(299):
        tokens += round_.tokens
    assert len(tokens) == 300
    assert 0 < decoder.stats.accepted < decoder.stats.drafted
