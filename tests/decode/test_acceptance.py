"""The head must be as good in the loop as it is on text laid out before it."""

import mlx.core as mx
import pytest
from demo import demo, demo_head, prompts

from skulk_core.decode.decoder import Decoder
from skulk_core.models.base import Hidden
from skulk_core.sampling.greedy import GreedySampler

NUM_TOKENS = 1000


def _text_and_agreement(index: int) -> tuple[float, list[bool]]:
    """Acceptance at position 1 at depth 1 in the loop; and per token whether the teacher-forced head foresaw it."""
    model, head = demo(), demo_head().head
    prompt = model.tokenizer.encode(prompts()[index])
    decoder = Decoder(model.target, head, GreedySampler())
    tokens = [decoder.prefill(prompt, 1)]
    for round_ in decoder.rounds(NUM_TOKENS - 1):
        tokens += round_.tokens
    text = mx.array(prompt + tokens)
    activations = model.target.run(model.target.embed(text, 0), model.target.make_caches())
    hidden = model.target.hidden(activations)
    agreed = []
    head.reset()
    head.observe(Hidden(hidden.pre_norm[: len(prompt)], hidden.post_norm[: len(prompt)]), text[1 : len(prompt) + 1])
    for place in range(len(prompt), len(text) - 1):
        draft = head.draft(1, GreedySampler())
        agreed.append(draft.tokens.item() == text[place + 1].item())
        head.observe(hidden.rows(place, place + 1), text[place + 1 : place + 2])
    return decoder.stats.acceptance[0], agreed


@pytest.fixture(scope="module")
def measured() -> list[tuple[float, list[bool]]]:
    return [_text_and_agreement(index) for index in (0, 2, 9)]


def test_acceptance_equals_teacher_forced_agreement(measured: list[tuple[float, list[bool]]]) -> None:
    """Within two points: an off-by-one pair, a skipped row or a shifted position costs tens of them.

    The loop asks for a draft only where a round begins; taken over all places of the same text the two shares differ
    by that choice of places, so the texts are put together.
    """
    in_loop = sum(share for share, _ in measured) / len(measured)
    forced = sum(sum(agreed) / len(agreed) for _, agreed in measured) / len(measured)
    assert in_loop == pytest.approx(forced, abs=0.02)


def test_agreement_does_not_decay_with_length(measured: list[tuple[float, list[bool]]]) -> None:
    for _, agreed in measured:
        half = len(agreed) // 2
        assert sum(agreed[half:]) / half >= sum(agreed[:half]) / half - 0.1
