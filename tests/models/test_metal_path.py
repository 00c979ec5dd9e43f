"""The path of a gated delta layer over mlx-lm's Metal kernel, with mlx-lm's own loop standing in for the kernel."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.gated_delta import gated_delta_ops
from tiny_models import assert_close, build, case, random_tokens

from skulk_core.cache.recurrent import KernelPass, RecurrentCache
from skulk_core.models import gdn_layer
from skulk_core.models.base import Target
from skulk_core.models.loading import cast
from skulk_core.models.registry import make_target

WIDTH = 6
PROMPT = 11


class Calls:
    """How often the kernel's stand-in and the closed form were called."""

    def __init__(self) -> None:
        self.kernel = self.rule = 0


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """The kernel's stand-in takes the kernel's place; nothing else of the path is changed."""
    calls, rule = Calls(), gdn_layer.gated_delta_rule

    def kernel(q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: mx.array) -> Any:
        calls.kernel += 1
        assert state.dtype == mx.float32
        return gated_delta_ops(q, k, v, g, beta, state)

    def counted(*inputs: mx.array) -> Any:
        calls.rule += 1
        return rule(*inputs)

    monkeypatch.setattr(gdn_layer, "has_kernel", lambda key_dims: True)
    monkeypatch.setattr(gdn_layer, "gated_delta_kernel", kernel)
    monkeypatch.setattr(gdn_layer, "gated_delta_rule", counted)
    yield calls
    assert calls.kernel, "the kernel was not called"


def target_of(name: str, dtype: mx.Dtype) -> Target:
    model = build(case(name))
    cast(model, dtype)
    return make_target(model)


def decode(target: Target, commits: list[int], text: mx.array) -> list[mx.array]:
    """Logits of the prompt, and of a pass of `WIDTH` rows for every commit: what was committed, then garbage."""
    caches, logits = target.make_caches(), []
    for number, (width, kept) in enumerate([(PROMPT, PROMPT), *((WIDTH, kept) for kept in commits)]):
        position = caches.rows
        tokens = mx.concatenate([text[position : position + kept], random_tokens(width - kept, seed=number)])
        ran = target.run(target.embed(tokens, position), caches)
        logits.append(target.logits(target.hidden(ran).post_norm))
        caches.commit(kept)
    return logits


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_next"])
def test_any_commit_after_the_kernel_is_that_of_the_rule(name: str, calls: Calls) -> None:
    """Otherwise speculation on a Mac writes another text than plain decoding there."""
    commits = [*range(WIDTH + 1), WIDTH, 1, 3]
    text = random_tokens(PROMPT + sum(commits), seed=1)
    target = target_of(name, mx.float32)
    expected = target.model(text[None])[0]
    position = 0
    for kept, logits in zip([PROMPT, *commits], decode(target, commits, text), strict=True):
        if kept:
            assert_close(logits[:kept], expected[position : position + kept])
        position += kept


def test_kernel_and_rule_agree(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    """Otherwise a Mac and a PC disagree on every text, garbage rows of a pass included."""
    commits = [2, 0, WIDTH, 5, 1]
    text = random_tokens(PROMPT + sum(commits), seed=2)
    by_kernel = decode(target_of("qwen3_5", mx.float32), commits, text)
    monkeypatch.setattr(gdn_layer, "has_kernel", lambda key_dims: False)
    for actual, expected in zip(by_kernel, decode(target_of("qwen3_5", mx.float32), commits, text), strict=True):
        assert_close(actual, expected)


def test_in_bfloat16_the_state_stays_float32(calls: Calls) -> None:
    """Otherwise the memory of a long text fades into rounding on a Mac."""
    target = target_of("qwen3_5", mx.bfloat16)
    caches = target.make_caches()
    for kept in (WIDTH, 2, 0):
        ran = target.run(target.embed(random_tokens(WIDTH, seed=3), caches.rows), caches)
        assert ran.h.dtype == mx.bfloat16
        caches.commit(kept)
        states = [cache.state for cache in caches if isinstance(cache, RecurrentCache)]
        assert {state.dtype for state in states if state is not None} == {mx.float32}


def test_a_full_commit_works_out_no_writes(calls: Calls) -> None:
    """Otherwise every prefill and every fully accepted round on a Mac pays for the rule on top of the kernel."""
    target = target_of("qwen3_5", mx.float32)
    linear = sum(layer.is_linear for layer in target.layers)
    caches = target.make_caches()
    text = random_tokens(2 * WIDTH, seed=4)
    target.run(target.embed(text[:WIDTH], 0), caches)
    caches.commit(WIDTH)
    assert (calls.kernel, calls.rule) == (linear, 0)
    target.run(target.embed(text[WIDTH:], WIDTH), caches)
    caches.commit(1)
    assert (calls.kernel, calls.rule) == (2 * linear, linear)


def test_the_kernel_s_last_state_is_kept_as_it_came() -> None:
    """Otherwise a prefix would be worked out although the kernel gave the answer."""
    final = mx.array([1.0])

    def never() -> Any:
        raise AssertionError("not asked for")

    assert KernelPass(final, 3, never).state_after(3) is final
