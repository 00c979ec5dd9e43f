"""Exactness that can be checked: the certificate finds what went wrong, and strict decoding prevents it."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Self

import mlx.core as mx
import pytest
from demo import demo, demo_head, prompts

from skulk_core.cache.base import CacheList
from skulk_core.cache.recurrent import RecurrentCache
from skulk_core.decode.certificate import Certificate, certify, measure_bound
from skulk_core.decode.decoder import Decoder
from skulk_core.decode.stats import Stats
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.settings import SamplingSettings

DEPTH = 3
TOKENS = 100
PENALTIES = SamplingSettings(repetition_penalty=1.2, presence_penalty=0.3, logit_bias=((11, 3.0),))


def prompt(index: int, dtype: str = "float32") -> list[int]:
    return demo(dtype).tokenizer.encode(prompts()[index])


def measured(dtype: str = "float32") -> float:
    text = demo(dtype).tokenizer.encode("\n".join(prompts()[20:]))
    return measure_bound(demo(dtype).target, text, DEPTH + 1)


bound = cache(measured)


def decoded(
    index: int, *, dtype: str = "float32", settings: SamplingSettings | None = None, strict_below: float = 0.0
) -> tuple[list[int], Stats]:
    sampler = GreedySampler(settings, gaps=strict_below > 0)
    decoder = Decoder(demo(dtype).target, demo_head(dtype).head, sampler)
    tokens = [decoder.prefill(prompt(index, dtype), DEPTH, strict_below=strict_below)]
    for round_ in decoder.rounds(TOKENS - 1):
        tokens += round_.tokens
    assert len(tokens) == TOKENS
    return tokens, decoder.stats


def certificate(
    index: int, tokens: Sequence[int], limit: float, dtype: str = "float32", settings: SamplingSettings | None = None
) -> Certificate:
    return certify(demo(dtype).target, prompt(index, dtype), tokens, limit, settings)


@pytest.mark.parametrize("settings", [None, PENALTIES], ids=["plain", "penalties"])
def test_float32_is_certified_exact(settings: SamplingSettings | None) -> None:
    tokens, _ = decoded(0, settings=settings)
    found = certificate(0, tokens, bound(), settings=settings)
    assert found.is_exact
    assert found.holds
    assert found.compared == TOKENS
    assert found.smallest_gap is not None
    assert found.smallest_gap > 0


def test_a_wrong_token_is_found_and_only_that() -> None:
    """Otherwise the certificate certifies anything. What follows is judged after the text as it was emitted."""
    tokens, _ = decoded(0)
    instead = (tokens[40] + 1) % demo("float32").target.vocab_size
    changed = [*tokens[:40], instead, *tokens[41:]]
    found = certificate(0, changed, bound())
    first = found.divergences[0]
    assert (first.position, first.emitted, first.plain) == (40, instead, tokens[40])
    assert first.gap > found.bound
    assert not found.holds


def test_the_bound_covers_what_bfloat16_passes_do() -> None:
    """Otherwise rounding is called a bug. All texts are others than the one that the bound was measured on."""
    limit = bound("bfloat16")
    for index in (0, 1):
        tokens, _ = decoded(index, dtype="bfloat16")
        assert certificate(index, tokens, limit, "bfloat16").holds


@pytest.mark.parametrize("widest", [2, 9, 40, 65])
def test_the_bound_of_a_width_covers_every_narrower_one(widest: int) -> None:
    """Rounds are narrower where a text ends; and a width beyond the measured text must not count as exact."""
    text = demo("bfloat16").tokenizer.encode("\n".join(prompts()[20:]))
    assert measure_bound(demo("bfloat16").target, text, widest) > 0.02


def test_a_prompt_read_in_pieces_has_a_bound_at_depth_0() -> None:
    """The turns of a conversation are read one by one, their replay at once."""
    target, text = demo("bfloat16").target, demo("bfloat16").tokenizer.encode("\n".join(prompts()[20:]))
    assert measure_bound(target, text, 1) == 0
    assert measure_bound(target, text, 1, in_pieces=True) > 0


def test_plain_decoding_is_exact_in_bfloat16_too() -> None:
    """The certificate compares with plain decoding itself, and not with something that rounds like it."""
    settings = SamplingSettings(repetition_penalty=1.3)
    for index in (0, 5):
        decoder = Decoder(demo("bfloat16").target, None, GreedySampler(settings))
        tokens = [decoder.prefill(prompt(index, "bfloat16"), 0)]
        for round_ in decoder.rounds(TOKENS - 1):
            tokens += round_.tokens
        assert certificate(index, tokens, 0.0, "bfloat16", settings).is_exact


def test_a_prompt_is_read_alike_with_and_without_a_head() -> None:
    """Otherwise every answer after it begins from other keys than plain decoding's, and strictness mends nothing."""
    target, tokens = demo("bfloat16").target, mx.array(prompt(3, "bfloat16") * 3, mx.int32)
    read = []
    for last_row in (False, True):
        caches = target.make_caches()
        target.run_and_commit(target.embed(tokens, 0), caches, last_row=last_row)
        read.append(caches.arrays())
    assert all(mx.array_equal(one, other).item() for one, other in zip(*read, strict=True))


def test_strict_in_bfloat16_differs_no_more_from_plain_decoding() -> None:
    """Real rounding, not noise that was put in."""
    limit, settings = bound("bfloat16"), SamplingSettings(repetition_penalty=1.3)
    differences, extra = {0.0: 0, limit: 0}, 0
    for index in (0, 5, 6):
        for below in differences:
            tokens, stats = decoded(index, dtype="bfloat16", settings=settings, strict_below=below)
            found = certificate(index, tokens, limit, "bfloat16", settings)
            assert found.holds
            differences[below] += len(found.divergences)
            extra += stats.extra_passes
    assert differences[limit] <= differences[0.0]
    assert extra > 0


@pytest.fixture
def noisy_wide_passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """Logits of passes over several rows are off by up to a half, as of a kernel that adds in another order."""
    target, size = demo("float32").target, 0.5
    exact = target.logits

    def logits(h: mx.array) -> mx.array:
        found = exact(h)
        if found.shape[0] == 1:
            return found
        return found + mx.random.uniform(-size, size, found.shape, key=mx.random.key(found.shape[0]))

    monkeypatch.setattr(target, "logits", logits)
    return size


def test_noise_in_wide_passes_is_seen_and_strict_acts_on_it(noisy_wide_passes: float) -> None:
    """The two levels must differ where it matters: `argmax` diverges, `strict` decides those rows by themselves."""
    limit, diverged, left, extra = measured(), 0, 0, 0
    assert limit >= noisy_wide_passes
    for index in (0, 2, 9):
        tokens, stats = decoded(index)
        assert stats.extra_passes == 0
        found = certificate(index, tokens, limit)
        assert found.holds, "the bound was measured with the noise"
        diverged += len(found.divergences)
        tokens, stats = decoded(index, strict_below=limit)
        left += len(certificate(index, tokens, limit).divergences)
        extra += stats.extra_passes
        assert stats.synchronisations == stats.rounds + stats.extra_passes + 1
    assert diverged > 0
    assert extra > 0
    assert left < diverged


def test_noise_that_the_bound_does_not_know_fails_the_certificate(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that computes wide passes wrongly must not pass as rounding."""
    limit = bound()
    request.getfixturevalue("noisy_wide_passes")
    tokens = {index: decoded(index)[0] for index in (0, 2, 9)}
    monkeypatch.undo()
    assert not all(certificate(index, tokens[index], limit).holds for index in tokens)


class _KeepsOneMore(RecurrentCache):
    @classmethod
    def _keep_all(cls, caches: Sequence[Self], num_rows: int) -> None:
        super()._keep_all(caches, min(num_rows + 1, caches[0].pending))


def test_a_broken_commit_fails_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison of the loop with itself would call this exact."""
    target, limit = demo("float32").target, bound()
    whole = target.make_caches

    def one_broken() -> CacheList:
        layers = list(whole())
        layers[0] = _KeepsOneMore()
        return CacheList(layers)

    monkeypatch.setattr(target, "make_caches", one_broken)
    tokens = {index: decoded(index)[0] for index in (0, 2, 9)}
    monkeypatch.undo()
    assert not all(certificate(index, tokens[index], limit).holds for index in tokens)
