"""Projections that are one product where weights are small: the same heads, the same weights, no second copy."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tiny_models import assert_close, build, case, random_tokens

from skulk_core.models import dense_layout, hybrid
from skulk_core.models.base import Target
from skulk_core.models.dense_layout import Order
from skulk_core.models.registry import make_target

# (dimensions of a head, whether its projections can be joined): one tile, two tiles, and half of one
HEADS = [(64, True), (128, True), (32, False)]
WIDTHS = (40, 1, 5, 1, 2)


@pytest.fixture(autouse=True)
def _tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has weights tiled, whatever the BLAS is that the tests run with."""
    monkeypatch.setattr(dense_layout, "best_order", lambda: Order.TILED)


def made(dims: int) -> tuple[Any, Target]:
    """A model as mlx-lm has it, and ours of the same weights."""
    one = case("qwen3_5", head_dim=dims, intermediate_size=128, vocab_size=112)
    target = make_target(build(one))
    target.lay_out()
    return build(one), target


def logits_of(target: Target, text: mx.array, run: Callable[..., Any]) -> mx.array:
    """Of all rows of a text that is read in passes of `WIDTHS`."""
    caches, parts, start = target.make_caches(), [], 0
    for width in WIDTHS:
        left = run(target.embed(text[start : start + width], start), caches)
        if caches.pending:
            caches.commit(width)
        parts.append(target.logits(target.hidden(left).post_norm))
        start += width
    return mx.concatenate(parts)


@pytest.mark.parametrize(("dims", "joins"), HEADS)
def test_joined_projections_are_those_of_the_modules(dims: int, joins: bool) -> None:
    """Otherwise heads take one another's queries or gates, and the text is noise."""
    own, target = made(dims)
    text = random_tokens(sum(WIDTHS), seed=1)
    expected = own(text[None])[0]
    assert_close(logits_of(target, text, target.run), expected, 1e-4)
    assert joined_in(target) == joins


@pytest.mark.parametrize(("dims", "joins"), HEADS)
def test_the_last_row_alone_is_the_last_row(dims: int, joins: bool) -> None:
    """Prompts are read so where nothing else is wanted of them."""
    own, target = made(dims)
    text = random_tokens(sum(WIDTHS), seed=2)
    expected = own(text[None])[0]
    ends = [sum(WIDTHS[: n + 1]) - 1 for n in range(len(WIDTHS))]
    last = logits_of(target, text, lambda *entering: target.run_and_commit(*entering, last_row=True))
    assert_close(last, expected[mx.array(ends)], 1e-4)
    assert joined_in(target) == joins


@pytest.mark.parametrize("dims", [64, 128])
def test_modules_keep_their_weights_as_views(dims: int) -> None:
    """mlx-lm's own forward runs on them, in a bench beside ours; a second copy would be memory for nothing."""
    (own, target), (_, another) = made(dims), made(dims)
    text = random_tokens(9, seed=3)
    # tables of angles and masks are kept for all models
    mx.eval(another.run(another.embed(text, 0), another.make_caches()).h)
    before = mx.get_active_memory()
    mx.eval(target.run(target.embed(text, 0), target.make_caches()).h)
    weights = sum(array.nbytes for _, array in tree_flatten(target.model.parameters()))
    assert joined_in(target)
    assert mx.get_active_memory() - before < weights // 10
    for theirs, ours in zip(own.layers, target.layers, strict=True):
        for block in ("mlp", "self_attn"):
            for name in ("gate_proj", "up_proj", "q_proj", "k_proj", "v_proj"):
                if block in ours and name in ours[block]:
                    assert mx.array_equal(ours[block][name].weight, theirs[block][name].weight), name
    assert_close(target.model(text[None])[0], own(text[None])[0], 1e-4)


def test_large_weights_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a product that takes milliseconds an operation is nothing, and joining would copy gigabytes."""
    monkeypatch.setattr(dense_layout, "_MOST_JOINED", 1000)
    own, target = made(64)
    text = random_tokens(sum(WIDTHS), seed=4)
    assert_close(logits_of(target, text, target.run), own(text[None])[0], 1e-4)
    assert not joined_in(target)


@pytest.mark.parametrize("dims", [128, 32])
def test_keys_are_the_same_bits_whether_or_not_other_rows_are_wanted(dims: int) -> None:
    """A prompt that is read with a head and one that is read without go on alike."""
    _, target = made(dims)
    entering = target.embed(random_tokens(20, seed=5), 0)
    attention = next(index for index, layer in enumerate(target.layers) if not layer.is_linear)
    whole, last = (target.make_layer_cache(target.layers[attention]) for _ in range(2))
    row = target.run_layer(target.layers[attention], entering.h, whole, "causal")[-1:]
    assert_close(target.run_layer_for_last(target.layers[attention], entering.h, last), row, 1e-5)
    for ours, theirs in zip(last.arrays(), whole.arrays(), strict=True):
        assert mx.array_equal(ours, theirs)


def joined_in(target: Any) -> bool:
    """Whether attention's projections are one product."""
    (found,) = {
        runner._heads._tiles is not None
        for _, runner in target._runners.values()
        if isinstance(runner, hybrid.GatedAttention)
    }
    return found
