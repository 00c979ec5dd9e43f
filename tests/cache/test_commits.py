"""After any passes and any commits, a cache holds exactly the committed rows."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Self

import mlx.core as mx
import pytest
from tiny_models import assert_close, build, case, random_tokens

from skulk_core.cache import window
from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import CacheList, LayerCache
from skulk_core.cache.recurrent import RecurrentCache
from skulk_core.cache.window import WindowCache
from skulk_core.models.base import Target
from skulk_core.models.registry import make_target

ROUNDS = 300
PROMPT_ROWS = 40
GREATEST_WIDTH = 6

FULL = case("llama", num_hidden_layers=1)
HYBRID = case("qwen3_5")


def sliding(width: int) -> Target:
    """A trunk of one sliding and one full layer (mlx-lm's llama wants a full one)."""
    layer_types = ["sliding_attention", "full_attention"]
    return make_target(build(case("llama", num_hidden_layers=2, layer_types=layer_types, sliding_window=width)))


def check(target: Target, caches: CacheList, *, most_feeds: int = 1, rounds: int = ROUNDS, seed: int = 0) -> None:
    """Rounds of a random width, a random part of which is committed; the rest is garbage.

    The committed text is drawn beforehand, so every committed row's logits are compared with those of one pass over
    that text: a row that a commit lost, kept, shifted or altered shows in all that follow. A round is fed in up to
    ``most_feeds`` passes before its commit.
    """
    draw = random.Random(seed)
    widths = [PROMPT_ROWS + 300] + [draw.randint(1, GREATEST_WIDTH) for _ in range(rounds)]
    commits = [PROMPT_ROWS] + [draw.randint(0, width) for width in widths[1:]]
    text = random_tokens(sum(commits), seed)
    expected = target.model(text[None])[0]
    garbage = random_tokens(4096, seed + 1)
    mx.eval(text, expected, garbage)
    position = 0
    for width, kept in zip(widths, commits, strict=True):
        start = draw.randrange(2048)
        tokens = mx.concatenate([text[position : position + kept], garbage[start : start + width - kept]])
        cuts = sorted(draw.randint(0, width) for _ in range(draw.randint(1, most_feeds) - 1))
        feeds = [(a, b) for a, b in itertools.pairwise([0, *cuts, width]) if a < b]
        logits = mx.concatenate([_pass(target, caches, tokens[a:b], position + a) for a, b in feeds])
        assert caches.pending == width
        caches.commit(kept)
        mx.eval(logits, *caches.arrays())
        if kept:
            assert_close(logits[:kept], expected[position : position + kept])
        position += kept
        assert caches.rows == position
        assert caches.pending == 0


def _pass(target: Target, caches: CacheList, tokens: mx.array, position: int) -> mx.array:
    ran = target.run(target.embed(tokens, position), caches)
    return target.logits(target.hidden(ran).post_norm)


@pytest.mark.parametrize("seed", [0, 1])
def test_attention_keeps_what_was_committed(seed: int) -> None:
    """Otherwise refused drafts stay in the context and the text drifts away from plain decoding."""
    target = make_target(build(FULL))
    check(target, target.make_caches(), seed=seed)


@pytest.mark.parametrize("width", [1, 2, 5, 16, 250, 4000])
def test_a_window_keeps_what_was_committed(width: int) -> None:
    """Otherwise models with sliding windows write nonsense once the text is longer than the window."""
    target = sliding(width)
    check(target, target.make_caches(), seed=width)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_recurrent_state_keeps_what_was_committed(seed: int) -> None:
    """Otherwise every refused draft leaves its mark on the state, for ever."""
    target = make_target(build(HYBRID))
    caches = target.make_caches()
    assert {type(cache) for cache in caches} == {RecurrentCache, AttentionCache}
    check(target, caches, seed=seed)


@pytest.mark.parametrize("spare_rows", [0, 5, 256])
@pytest.mark.parametrize("width", [3, 16, 250])
def test_attention_and_window_take_several_passes_before_a_commit(
    width: int, spare_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a head that drafts row by row spoils its own cache, at the latest when its buffer is full."""
    monkeypatch.setattr(window, "_SPARE_ROWS", spare_rows)
    target = sliding(width)
    check(target, target.make_caches(), most_feeds=4, rounds=120, seed=width)


def test_a_recurrent_cache_refuses_a_second_pass_before_its_commit() -> None:
    """Otherwise the rows of the first pass would be lost without a word."""
    target = make_target(build(HYBRID))
    caches = target.make_caches()
    _pass(target, caches, random_tokens(3, 0), 0)
    with pytest.raises(AssertionError, match="wait for their commit"):
        _pass(target, caches, random_tokens(3, 1), 3)


def test_a_window_stays_as_small_as_its_window() -> None:
    """Otherwise a long text fills the memory that the window was chosen to save."""
    target = sliding(16)
    caches = target.make_caches()
    check(target, caches)
    sliding_layer, full_layer = caches
    assert sliding_layer.rows > 500
    assert sliding_layer.nbytes < full_layer.nbytes


class _KeepsOneMore(LayerCache):
    """A commit that is off by one, over the cache that it is mixed into."""

    def _keep(self, num_rows: int) -> None:
        super()._keep(min(num_rows + 1, self.pending))  # type: ignore[safe-super]


class _BrokenAttention(_KeepsOneMore, AttentionCache):
    pass


class _BrokenWindow(_KeepsOneMore, WindowCache):
    pass


class _BrokenRecurrent(RecurrentCache):
    @classmethod
    def _keep_all(cls, caches: Sequence[Self], num_rows: int) -> None:
        super()._keep_all(caches, min(num_rows + 1, caches[0].pending))


@pytest.mark.parametrize(
    ("make_target_", "broken"),
    [
        (lambda: make_target(build(FULL)), (AttentionCache, _BrokenAttention)),
        (lambda: sliding(5), (WindowCache, lambda: _BrokenWindow(5))),
        (lambda: sliding(250), (WindowCache, lambda: _BrokenWindow(250))),
        (lambda: make_target(build(HYBRID)), (RecurrentCache, _BrokenRecurrent)),
    ],
    ids=["attention", "window", "wide window", "recurrent"],
)
def test_the_check_catches_a_commit_that_is_off_by_one(
    make_target_: Callable[[], Target], broken: tuple[type[LayerCache], Callable[[], LayerCache]]
) -> None:
    """Otherwise none of the tests above would say anything: one layer keeps one refused row too many."""
    target = make_target_()
    kind, make_broken = broken
    layers = list(target.make_caches())
    layers[[type(layer) for layer in layers].index(kind)] = make_broken()
    with pytest.raises(AssertionError, match="relative error"):
        check(target, CacheList(layers), rounds=20)


@pytest.mark.parametrize("make_cache", [AttentionCache, lambda: WindowCache(4), RecurrentCache])
def test_more_than_was_fed_cannot_be_committed(make_cache: Callable[[], LayerCache]) -> None:
    """Otherwise a wrong count in a round would be taken for rows that never were."""
    cache = make_cache()
    for count in (1, -1):
        with pytest.raises(AssertionError, match="pending rows"):
            cache.commit(count)
    cache.commit(0)
    assert (cache.rows, cache.nbytes) == (0, 0)


def test_a_list_commits_all_or_none() -> None:
    """Otherwise two layers disagree on how long the text is."""
    target = make_target(build(HYBRID))
    caches = target.make_caches()
    h = target.embed(random_tokens(2, 0), 0).h
    target.run_layer(target.layers[0], h, caches[0], None)
    with pytest.raises(AssertionError, match="fed different passes"):
        caches.commit(1)
    assert [cache.rows for cache in caches] == [0] * len(caches)


def test_an_attention_cache_shows_heads_the_committed_rows_only() -> None:
    """Otherwise a head that reads the trunk's keys and values attends to refused drafts."""
    target = make_target(build(FULL))
    caches = target.make_caches()
    _pass(target, caches, random_tokens(5, 0), 0)
    cache = caches[0]
    assert isinstance(cache, AttentionCache)
    assert cache.keys_and_values()[0].shape[2] == 0
    caches.commit(3)
    keys, values = cache.keys_and_values()
    again = target.make_caches()
    _pass(target, again, random_tokens(5, 0)[:3], 0)
    again.commit(3)
    for actual, expected in zip((keys, values), again[0].keys_and_values(), strict=True):
        assert_close(actual, expected)
