"""A prompt that begins with the text decoded last is not read again, and nobody could tell from what comes out."""

from collections.abc import Iterator
from functools import cache

import mlx.core as mx
import pytest
from demo import demo, demo_head, prompts
from mlx_lm.generate import generate_step

from skulk_core.decode.decoder import PREFILL_ROWS, Decoder
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler

DEPTHS = (0, 1, 2, 3, 4)
NUM_TOKENS = 24


def decoder() -> Decoder:
    return Decoder(demo().target, demo_head().head, GreedySampler())


def encoded(index: int) -> list[int]:
    tokens: list[int] = demo().tokenizer.encode(prompts()[index])
    return tokens


def answer(
    with_decoder: Decoder, prompt: list[int], depth: int, num_tokens: int, stop: frozenset[int] = frozenset()
) -> list[int]:
    tokens = [with_decoder.prefill(prompt, depth, go_on=True)]
    for round_ in with_decoder.rounds(num_tokens - 1, stop):
        tokens += round_.tokens
    return tokens


def plain(prompt: list[int], num_tokens: int) -> list[int]:
    """mlx-lm's own greedy generation from the whole prompt."""
    return _plain(tuple(prompt), num_tokens)


@cache
def _plain(prompt: tuple[int, ...], num_tokens: int) -> list[int]:
    return [token for token, _ in generate_step(mx.array(prompt), demo().target.model, max_tokens=num_tokens)]


def assert_goes_on(used: Decoder, text: list[int], more: list[int], depth: int) -> None:
    """Fail unless the next answer, its acceptance included, is that of a decoder that read everything afresh."""
    prompt = text + more
    tokens = answer(used, prompt, depth, NUM_TOKENS)
    assert used.stats.reused_tokens == len(text) - 1
    fresh = decoder()
    assert tokens == answer(fresh, prompt, depth, NUM_TOKENS)
    assert (fresh.stats.reused_tokens, fresh.stats.prompt_tokens) == (0, used.stats.prompt_tokens)
    assert used.stats.accepted_at == fresh.stats.accepted_at
    assert used.stats.judged_at == fresh.stats.judged_at
    assert used._caches.rows == fresh._caches.rows == len(prompt) + NUM_TOKENS - 1


@pytest.mark.parametrize("depth", DEPTHS)
def test_after_an_answer_that_reached_its_length(depth: int) -> None:
    used, text = decoder(), encoded(0)
    for index in (1, 2):
        text = text + answer(used, text, depth, 30)
        assert used.text == tuple(text)
        assert_goes_on(used, text, encoded(index), depth)
        assert list(used.text)[-NUM_TOKENS:] == plain(text + encoded(index), NUM_TOKENS)
        text = list(used.text)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("num_rounds", [0, 1, 5])
def test_after_an_interrupted_answer(depth: int, num_rounds: int) -> None:
    """Also before its first round, and with a pass under way that nobody asked for."""
    used, prompt = decoder(), encoded(3)
    text = [*prompt, used.prefill(prompt, depth)]
    rounds = used.rounds(100)
    for _ in range(num_rounds):
        text += next(rounds).tokens
    rounds.close()
    assert_goes_on(used, text, encoded(4), depth)


@pytest.mark.parametrize("depth", DEPTHS)
def test_after_a_stop_token_wherever_in_a_round_it_falls(depth: int) -> None:
    prompt = encoded(5)
    whole = plain(prompt, 30)
    for place in (1, 2, 4):
        used = decoder()
        text = prompt + answer(used, prompt, depth, 30, frozenset({whole[place]}))
        assert text[-1] == whole[place]
        assert_goes_on(used, text, encoded(6), depth)


@pytest.mark.parametrize("depth", [0, 2])
def test_nothing_new_is_said(depth: int) -> None:
    """A text that was cut off goes on as if it had not been."""
    used, prompt = decoder(), encoded(7)
    text = prompt + answer(used, prompt, depth, 20)
    assert_goes_on(used, text, [], depth)
    assert list(used.text) == prompt + plain(prompt, 20 + NUM_TOKENS)


def test_a_prompt_that_was_interrupted_is_read_on() -> None:
    """What was read of a long prompt is not lost, and what was not read is not taken for read."""
    depth, prompt = 2, (3 * demo().tokenizer.encode("\n".join(prompts())))[: PREFILL_ROWS + 50]
    assert len(prompt) > PREFILL_ROWS

    def stop_after_the_first_pass(done: int, total: int) -> None:
        raise KeyboardInterrupt

    used = decoder()
    with pytest.raises(KeyboardInterrupt):
        used.prefill(prompt, depth, stop_after_the_first_pass)
    tokens = answer(used, prompt, depth, 20)
    assert used.stats.reused_tokens == PREFILL_ROWS
    fresh = decoder()
    assert tokens == answer(fresh, prompt, depth, 20)
    assert used.stats.accepted_at == fresh.stats.accepted_at


@pytest.mark.parametrize("depth", [0, 3])
def test_drawn_with_penalties(depth: int) -> None:
    """What is drawn, and what the penalties count, depend on the whole text and not on how it was read."""
    settings = SamplingSettings(temperature=0.8, seed=5, repetition_penalty=1.2, frequency_penalty=0.3)

    def drawn(with_decoder: Decoder, prompt: list[int]) -> list[int]:
        tokens = [with_decoder.prefill(prompt, depth, sampler=make_sampler(settings), go_on=True)]
        for round_ in with_decoder.rounds(NUM_TOKENS - 1):
            tokens += round_.tokens
        return tokens

    used, text = decoder(), encoded(12)
    prompt = text + drawn(used, text) + encoded(13)
    tokens = drawn(used, prompt)
    assert used.stats.reused_tokens == len(text) + NUM_TOKENS - 1
    assert tokens == drawn(decoder(), prompt)


def test_another_text_is_read_from_its_beginning() -> None:
    used, prompt = decoder(), encoded(8)
    text = prompt + answer(used, prompt, 2, 10)
    for other in (text[:-1], [*text[:-1], text[-1] + 1, 5], prompt, encoded(9)):
        assert answer(used, other, 2, 10) == plain(other, 10)
        assert used.stats.reused_tokens == 0


def test_a_head_that_has_not_read_the_text_reads_it_first() -> None:
    """From plain decoding to drafting: cold drafts would cost acceptance for the whole answer."""
    used, prompt = decoder(), encoded(10)
    text = prompt + answer(used, prompt, 0, 20)
    tokens, fresh = answer(used, text, 3, NUM_TOKENS), decoder()
    assert used.stats.reused_tokens == 0
    assert tokens == answer(fresh, text, 3, NUM_TOKENS)
    assert used.stats.accepted_at == fresh.stats.accepted_at
    # and back: plain decoding needs no head
    text += tokens
    assert answer(used, text, 0, 10) == plain(text, 10)
    assert used.stats.reused_tokens == len(text) - 1


def test_a_round_that_failed_half_way_is_not_gone_on_from() -> None:
    """A device that fails in mid-round leaves caches that hold nobody knows what."""

    class Failing(GreedySampler):
        num_rounds = 0

        def accept(self, *arguments, **named):  # type: ignore[no-untyped-def]
            self.num_rounds += 1
            if self.num_rounds == 3:
                raise RuntimeError("[eval] the device is gone")
            return super().accept(*arguments, **named)

    for depth in (0, 2):
        used, prompt = decoder(), encoded(11)
        used.prefill(prompt, depth, sampler=Failing())
        with pytest.raises(RuntimeError, match="gone"):
            _all(used.rounds(50))
        text = list(used.text)
        used.prefill([*text, 7], depth, sampler=GreedySampler(), go_on=True)
        assert used.stats.reused_tokens == 0
        tokens = [used.text[-1]]
        for round_ in used.rounds(9):
            tokens += round_.tokens
        assert tokens == plain([*text, 7], 10)


def _all(rounds: Iterator[object]) -> None:
    for _ in rounds:
        pass
