"""Speculation must not change one token, and must cost one synchronisation a round."""

from collections.abc import Callable
from functools import cache
from typing import Any

import mlx.core as mx
import pytest
from demo import demo, demo_head, prompts
from mlx_lm.generate import generate_step

from skulk_core.decode.decoder import PREFILL_ROWS, Decoder
from skulk_core.heads.ngram import NgramHead
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler

NUM_TOKENS = 200
DEPTHS = (0, 1, 2, 3, 4)


def decode(
    prompt: list[int], depth: int, num_tokens: int, stop: frozenset[int] = frozenset()
) -> tuple[list[int], Decoder]:
    """Tokens of a whole text and the decoder that made them."""
    decoder = Decoder(demo().target, demo_head().head, GreedySampler())
    tokens = [decoder.prefill(prompt, depth)]
    for round_ in decoder.rounds(num_tokens - 1, stop):
        tokens += round_.tokens
    return tokens, decoder


@cache
def reference(index: int, num_tokens: int = NUM_TOKENS) -> list[int]:
    """mlx-lm's own greedy generation, which knows nothing of stop tokens here."""
    prompt = mx.array(demo().tokenizer.encode(prompts()[index]))
    return [token for token, _ in generate_step(prompt, demo().target.model, max_tokens=num_tokens)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_gives_the_tokens_of_mlx_lm(depth: int) -> None:
    """All prompts, 200 tokens, float32: a user never sees other text because of speculation."""
    for index, text in enumerate(prompts()):
        tokens, _ = decode(demo().tokenizer.encode(text), depth, NUM_TOKENS)
        assert tokens == reference(index), f"prompt {index}"


class Watch:
    """Counts waits for the device, and host reads of arrays that nobody had waited for: each is a wait of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits, self.unawaited, self._known = 0, 0, dict[int, mx.array]()
        evaluate = mx.eval

        def wait(*arrays: mx.array) -> None:
            self.waits += 1
            self._known |= {id(array): array for array in arrays}
            evaluate(*arrays)

        monkeypatch.setattr(mx, "eval", wait)
        for name in ("item", "tolist", "__bool__", "__int__", "__float__"):
            if hasattr(mx.array, name):
                monkeypatch.setattr(mx.array, name, self._reading(getattr(mx.array, name)))

    def _reading(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(array: mx.array, *arguments: Any) -> Any:
            self.unawaited += id(array) not in self._known
            return read(array, *arguments)

        return reading


SAMPLERS = {"greedy": SamplingSettings(), "drawn": SamplingSettings(temperature=0.7, top_p=0.9, seed=3)}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("depth", "drafter"), [(0, "head"), (1, "head"), (2, "head"), (4, "head"), (2, "ngram"), (0, "ngram")]
)
def test_one_synchronisation_a_round(depth: int, drafter: str, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait per draft, or for what was launched ahead, would eat what speculation gains on a fast device."""
    head = demo_head().head if drafter == "head" else NgramHead()
    decoder = Decoder(demo().target, head, make_sampler(SAMPLERS[sampler]))
    decoder.prefill(demo().tokenizer.encode(prompts()[0]), depth)
    watch = Watch(monkeypatch)
    list(decoder.rounds(600))
    monkeypatch.undo()
    stats = decoder.stats
    assert (watch.waits, watch.unawaited) == (stats.rounds, 0)
    assert stats.synchronisations == stats.rounds + 1
    assert stats.extra_passes == 0
    assert stats.tokens == 600


def test_a_wait_for_a_draft_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch itself can fail."""
    watch = Watch(monkeypatch)
    for read in (lambda array: array.item(), lambda array: array[None].tolist(), bool, int, float):
        read(mx.array(1) + 1)
    monkeypatch.undo()
    assert watch.unawaited == 5


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize("cut", range(1, 8))
def test_max_tokens_cuts_inside_a_round(depth: int, cut: int) -> None:
    tokens, _ = decode(demo().tokenizer.encode(prompts()[3]), depth, cut)
    assert tokens == reference(3)[:cut]


@pytest.mark.parametrize("depth", [0, 1, 3, 4])
def test_a_stop_token_ends_the_text_wherever_in_a_round_it_falls(depth: int) -> None:
    """Each token of the text in turn is made the stop token: nothing after its first place may come out."""
    prompt = demo().tokenizer.encode(prompts()[5])
    text = reference(5)[:40]
    for place in range(1, 25):
        stop = text[place]
        end = text.index(stop, 1) + 1
        tokens, decoder = decode(prompt, depth, 40, frozenset({stop}))
        assert tokens[:end] == text[:end]
        assert len(tokens) == end
        # the caches hold the emitted tokens but the last, which was never fed
        assert decoder._caches.rows == len(prompt) + end - 1


def test_a_long_prompt_is_fed_in_passes_and_observed_whole() -> None:
    """Acceptance starts cold if the head misses part of a prompt; the text must not depend on the passes either."""
    tokens = 3 * demo().tokenizer.encode("\n".join(prompts()))
    prompt = tokens[: PREFILL_ROWS + 77]
    assert len(prompt) > PREFILL_ROWS
    seen: list[tuple[int, int]] = []
    decoder = Decoder(demo().target, demo_head().head, GreedySampler())
    out = [decoder.prefill(prompt, 3, lambda done, total: seen.append((done, total)))]
    for round_ in decoder.rounds(59):
        out += round_.tokens
    expected = [t for t, _ in generate_step(mx.array(prompt), demo().target.model, max_tokens=60)]
    assert out == expected
    assert seen == [(PREFILL_ROWS, len(prompt)), (len(prompt), len(prompt))]
    assert demo_head().head._cache.rows == len(prompt) + len(out) - 1


def test_a_decoder_begins_every_text_afresh() -> None:
    prompt = demo().tokenizer.encode(prompts()[7])
    decoder = Decoder(demo().target, demo_head().head, GreedySampler())
    texts = []
    for depth in (2, 0, 4, 2):
        out = [decoder.prefill(prompt, depth)]
        for round_ in decoder.rounds(30):
            out += round_.tokens
        texts.append(out)
    assert all(text == texts[0] for text in texts)


def test_an_abandoned_text_leaves_no_pending_rows() -> None:
    """A reader that stops asking in mid-text must not leave half-fed caches behind."""
    decoder = Decoder(demo().target, demo_head().head, GreedySampler())
    prompt = demo().tokenizer.encode(prompts()[1])
    for depth in (0, 3):
        decoder.prefill(prompt, depth)
        rounds = decoder.rounds(50)
        next(rounds)
        rounds.close()
        assert decoder._caches.pending == 0
