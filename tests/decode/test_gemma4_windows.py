"""Text many windows long, with drafts taken back all the time: ours is plain decoding's, mlx-lm's own is not."""

import random
from functools import cache

import assistants
import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step, speculative_generate_step
from tiny_models import randomise

from skulk_core.decode.decoder import Decoder
from skulk_core.heads.ngram import NgramHead
from skulk_core.sampling.base import Draft, Place, Sampler
from skulk_core.sampling.greedy import GreedySampler

NUM_TOKENS = 500
PROMPT = assistants.PROMPTS[0]


@cache
def plain() -> list[int]:
    """By mlx-lm's own loop, a row at a time: its rotating cache is right as long as nothing is taken back."""
    prompt = mx.array(_prompt())
    steps = generate_step(prompt, assistants.target().target.model, max_tokens=NUM_TOKENS)
    return [token for token, _ in steps]


class _Faulty(NgramHead):
    """Drafts that are right up to a place that changes from round to round, and wrong from there on."""

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        at = len(self._tokens)
        drafted = plain()[at - len(_prompt()) + 1 :][:depth]
        wrong = random.Random(at).randint(0, depth)
        return Draft(mx.array([token + (index >= wrong) for index, token in enumerate(drafted)], mx.int32))


def _prompt() -> list[int]:
    tokens: list[int] = assistants.target().tokenizer.encode(PROMPT)
    return tokens


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_greedy_text_is_plain_decodings(depth: int) -> None:
    """Twenty windows of text, with none, some and all of a round's drafts taken back."""
    model = assistants.target()
    decoder = Decoder(model.target, _Faulty(), GreedySampler())
    tokens, accepted = [decoder.prefill(_prompt(), depth)], set()
    for round_ in decoder.rounds(NUM_TOKENS - 1):
        tokens += round_.tokens
        accepted.add(round_.num_accepted)
    assert len(tokens) > 10 * model.target.args.sliding_window
    assert tokens == plain()
    assert accepted == set(range(depth + 1))


def test_mlx_lm_s_trimming_fails_here() -> None:
    """What our window is for: a rotating cache that is full cannot take a row back, and nothing says so."""
    model, window = assistants.target().target.model, assistants.target().target.args.sliding_window
    prompt = mx.array(_prompt())
    # drafts that are refused
    stranger = type(model)(model.args)
    randomise(stranger, 1)
    steps = speculative_generate_step(prompt, model, stranger, num_draft_tokens=2, max_tokens=4 * window)
    tokens = [int(token) for token, *_ in steps]
    assert len(tokens) == 4 * window
    assert tokens != plain()[: 4 * window]
