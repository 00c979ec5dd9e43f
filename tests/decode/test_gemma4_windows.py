"""Text many windows long, with drafts taken back all the time: ours is plain decoding's, mlx-lm's own is not."""

from functools import cache

import assistants
import mlx.core as mx
import pytest
from assistants import VARIED, num_distinct
from faulty_drafts import FaultyDrafts
from mlx_lm.generate import generate_step, speculative_generate_step
from tiny_models import randomise

from skulk_core.decode.decoder import Decoder
from skulk_core.sampling.stochastic import make_sampler

NUM_TOKENS = 500
PROMPT = assistants.PROMPTS[0]


@cache
def plain() -> list[int]:
    """By mlx-lm's own loop, a row at a time: its rotating cache is right as long as nothing is taken back."""
    prompt = _prompt()
    own = mx.zeros((assistants.target().target.vocab_size,)).at[mx.array(prompt)].add(1)

    shown_first: list[int] = []

    def penalised(tokens: mx.array, logits: mx.array) -> mx.array:
        """As `VARIED` says. ``tokens`` begin with as much of the prompt as mlx-lm shows before the first choice."""
        shown_first.append(tokens.shape[0])
        answer = mx.zeros_like(own).at[tokens[shown_first[0] :]].add(1)
        by = VARIED.repetition_penalty
        seen = mx.where(logits > 0, logits / by, logits * by)
        return mx.where(own + answer > 0, seen, logits) - VARIED.frequency_penalty * answer

    model = assistants.target().target.model
    steps = generate_step(mx.array(prompt), model, max_tokens=NUM_TOKENS, logits_processors=[penalised])
    return [token for token, _ in steps]


def _prompt() -> list[int]:
    tokens: list[int] = assistants.target().tokenizer.encode(PROMPT)
    return tokens


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_greedy_text_is_plain_decodings(depth: int) -> None:
    """Twenty windows of text, with none, some and all of a round's drafts taken back."""
    model = assistants.target()
    decoder = Decoder(model.target, FaultyDrafts(plain(), len(_prompt())), make_sampler(VARIED))
    tokens, accepted = [decoder.prefill(_prompt(), depth)], set()
    for round_ in decoder.rounds(NUM_TOKENS - 1):
        tokens += round_.tokens
        accepted.add(round_.num_accepted)
    assert len(tokens) > 10 * model.target.args.sliding_window
    assert tokens == plain()
    assert accepted == set(range(depth + 1))
    assert num_distinct(tokens) > NUM_TOKENS / 2


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
