"""The head must be as good in the loop as it is on text laid out before it."""

from functools import cache

import mlx.core as mx
import pytest
from demo import demo, demo_head, prompts

from skulk_core.decode.decoder import Decoder
from skulk_core.sampling.greedy import GreedySampler

NUM_TOKENS = 1000
TEXTS = (0, 2, 9)


@cache
def in_the_loop(index: int) -> tuple[float, list[int], int]:
    """Acceptance at depth 1 over a long text, the text with its prompt, and the prompt's length."""
    prompt = demo().tokenizer.encode(prompts()[index])
    decoder = Decoder(demo().target, demo_head().head, GreedySampler())
    tokens = [decoder.prefill(prompt, 1)]
    for round_ in decoder.rounds(NUM_TOKENS - 1):
        tokens += round_.tokens
    return decoder.stats.acceptance[0], prompt + tokens, len(prompt)


@cache
def teacher_forced(index: int) -> list[bool]:
    """Per pair of the same text: whether the head, fed the whole text at once, foresaw the token after it."""
    _, text, prompt_length = in_the_loop(index)
    target, head = demo().target, demo_head().head
    tokens = mx.array(text)
    hidden = target.hidden(target.run(target.embed(tokens, 0), target.make_caches()))
    layer = head._module.layers[0]
    cache = target.make_layer_cache(layer)
    entering = head._entering(hidden.post_norm[:-1], tokens[1:])
    outputs = target.run_layer(layer, entering, cache, cache.mask(len(text) - 1))
    foreseen = mx.argmax(target.logits(head._module.norm(outputs)), axis=-1)
    return (foreseen[:-1] == tokens[2:]).tolist()[prompt_length - 1 :]


def test_acceptance_equals_teacher_forced_agreement() -> None:
    """Within two points: an off-by-one pair, a skipped row or a shifted position costs tens of them.

    The loop asks for a draft only where a round begins; over all places of one text the two shares differ by that
    choice of places, so the texts are put together.
    """
    in_loop = sum(in_the_loop(index)[0] for index in TEXTS) / len(TEXTS)
    forced = [sum(agreed) / len(agreed) for agreed in map(teacher_forced, TEXTS)]
    assert in_loop == pytest.approx(sum(forced) / len(forced), abs=0.02)


@pytest.mark.parametrize("index", TEXTS)
def test_agreement_does_not_decay_with_length(index: int) -> None:
    agreed = teacher_forced(index)
    half = len(agreed) // 2
    assert sum(agreed[half:]) / half >= sum(agreed[:half]) / half - 0.1


@pytest.mark.parametrize("index", TEXTS)
def test_acceptance_does_not_decay_with_length(index: int) -> None:
    """The loop's own rounds, early against late: a head fed a pair twice or never drifts away from its text."""
    decoder = Decoder(demo().target, demo_head().head, GreedySampler())
    decoder.prefill(demo().tokenizer.encode(prompts()[index]), 1)
    accepted = [round_.num_accepted for round_ in decoder.rounds(NUM_TOKENS - 1) if round_.num_drafted]
    half = len(accepted) // 2
    assert sum(accepted[half:]) / half >= sum(accepted[:half]) / half - 0.1
