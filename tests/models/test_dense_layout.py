"""Weights stored in another order are the same weights: in every family, for any number of rows, as LM head too."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from demo import demo, prompts
from mlx.utils import tree_flatten
from tiny_models import CASES, Case, assert_close, build, case, random_tokens

from skulk_core.models import dense_layout
from skulk_core.models.dense_layout import Order, TiledEmbedding, TiledLinear
from skulk_core.models.light import linear
from skulk_core.models.loading import outline, read_weights
from skulk_core.models.registry import make_target
from skulk_core.runtime import blas
from skulk_core.runtime.blas import BlasChoice
from skulk_core.runtime.resources import demo_folder
from skulk_core.types import LayerRange

OTHERS = [Order.TILED, Order.TRANSPOSED]


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Order], None]:
    """Has weights stored in an order whatever the BLAS is that the tests run with."""
    return lambda order: monkeypatch.setattr(dense_layout, "best_order", lambda: order)


def drawn(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def made(out: int, size: int, *, bias: bool = False) -> nn.Linear:
    module = nn.Linear(size, out, bias=bias)
    module.weight = drawn(out, size, seed=1)
    if bias:
        module.bias = drawn(out, seed=2)
    return module


@pytest.mark.parametrize("order", OTHERS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("out", "size"), [(64, 24), (192, 10), (96, 7), (48, 33), (128, 2000), (64, 6000)])
def test_products_are_those_of_the_module(
    ordered: Callable[[Order], None], order: Order, bias: bool, out: int, size: int
) -> None:
    """Otherwise every layer of a trunk computes something else, or mixes its columns up."""
    ordered(order)
    own, changed = made(out, size, bias=bias), dense_layout.laid_out(made(out, size, bias=bias))
    assert type(changed) is (TiledLinear if order is Order.TILED else nn.Linear)
    for rows in (1, 2, 5, 40):
        x = drawn(rows, size, seed=rows)
        assert_close(changed(x), own(x), 1e-4)
        assert_close(linear(changed)(x), own(x), 1e-4)
        assert_close(changed(x[None]), own(x[None]), 1e-4)


@pytest.mark.parametrize("order", OTHERS)
def test_weights_stay_bit_for_bit_and_take_no_more_room(ordered: Callable[[Order], None], order: Order) -> None:
    ordered(order)
    own, changed = made(96, 40), dense_layout.laid_out(made(96, 40))
    (stored,) = (array for _, array in tree_flatten(changed.parameters()))
    assert stored.nbytes == own.weight.nbytes
    weight = stored.swapaxes(1, 2).reshape(96, 40) if order is Order.TILED else stored
    assert mx.array_equal(weight, own.weight)


@pytest.mark.parametrize("order", OTHERS)
def test_what_float32_kernels_do_not_serve_is_left_alone(ordered: Callable[[Order], None], order: Order) -> None:
    ordered(order)
    half, packed, narrow = made(64, 32), nn.QuantizedLinear.from_linear(made(64, 32), 32, 8), made(4, 32)
    half.weight = half.weight.astype(mx.bfloat16)
    assert dense_layout.laid_out(half) is half
    assert half.weight.dtype == mx.bfloat16
    assert dense_layout.laid_out(packed) is packed
    assert type(dense_layout.laid_out(narrow)) is nn.Linear  # no whole tile


@pytest.mark.parametrize("order", OTHERS)
def test_an_embedding_that_is_the_lm_head(ordered: Callable[[Order], None], order: Order) -> None:
    """Rows are looked up exactly: a wrong one would be another token."""
    ordered(order)
    own, changed = nn.Embedding(192, 20), nn.Embedding(192, 20)
    own.weight, changed.weight = drawn(192, 20), drawn(192, 20)
    changed = dense_layout.laid_out(changed)
    assert isinstance(changed, TiledEmbedding) == (order is Order.TILED)
    tokens = mx.array([0, 191, 63, 64, 65, 7, 7])
    assert mx.array_equal(changed(tokens), own(tokens))
    assert mx.array_equal(changed(tokens[None]), own(tokens[None]))
    for x in (drawn(1, 20), drawn(6, 20), drawn(2, 3, 20)):
        assert_close(changed.as_linear(x), own.as_linear(x), 1e-5)


@pytest.mark.parametrize("order", OTHERS)
@pytest.mark.parametrize("family", CASES, ids=str)
def test_every_family_computes_the_same(ordered: Callable[[Order], None], family: Case, order: Order) -> None:
    ordered(order)
    # a vocabulary of whole tiles, for LM heads and embeddings that serve as one
    model, text = build(case(family.name, vocab_size=112)), random_tokens(12, seed=1)
    expected = model(text[None])[0]
    target = make_target(model)
    target.lay_out()
    caches = target.make_caches()
    left = target.run(target.embed(text, 0), caches)
    assert_close(target.logits(target.hidden(left).post_norm), expected)
    # and mlx-lm itself, which a bench sets beside ours on the same weights
    assert_close(model(text[None])[0], expected)


@pytest.mark.parametrize("order", OTHERS)
def test_a_checkpoint_is_laid_out_as_it_is_read(ordered: Callable[[Order], None], order: Order) -> None:
    ordered(order)
    tokens = mx.array(demo().tokenizer.encode(prompts()[0]))
    model = outline(demo_folder(), "float32")
    expected, nbytes = model.target.model(tokens[None])[0], model.nbytes
    read_weights(model)
    assert model.nbytes == nbytes
    names = [name for name, _ in tree_flatten(model.target.model.parameters())]
    assert any(name.endswith("embed_tokens.tiles") for name in names) == (order is Order.TILED)
    assert_close(model.target.model(tokens[None])[0], expected, 1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_what_another_host_has_is_not_read(ordered: Callable[[Order], None], tied: bool) -> None:
    """A stage has no LM head, and where it is a view of nothing, none may be made of it."""
    ordered(Order.TILED)
    model = build(case("llama", tie_word_embeddings=tied, vocab_size=64))
    first = make_target(model, LayerRange(0, 1))
    first.lay_out()
    kinds = {type(module) for module in (model.model.embed_tokens, model.get("lm_head"), model.layers[1].mlp.up_proj)}
    assert not kinds & {TiledLinear, TiledEmbedding}
    assert type(model.layers[0].mlp.up_proj) is TiledLinear
    make_target(model, LayerRange(1, 3)).lay_out()
    assert type(model.model.embed_tokens if tied else model.lm_head) in (TiledLinear, TiledEmbedding)


@pytest.mark.parametrize(
    ("core", "threads", "order"),
    [
        ("SkylakeX", 1, Order.TILED),
        ("SkylakeX", 8, Order.TRANSPOSED),
        ("Haswell", 1, Order.TRANSPOSED),
        ("Zen", 1, Order.TRANSPOSED),
        (None, 1, Order.AS_STORED),
    ],
)
def test_the_order_follows_the_blas(
    monkeypatch: pytest.MonkeyPatch, core: str | None, threads: int, order: Order
) -> None:
    """OpenBLAS without AVX-512 has no kernels for tiles: they would be slower than what they replace."""
    monkeypatch.setattr(blas, "openblas_core", lambda: core)
    monkeypatch.setattr(blas, "prepare", lambda: BlasChoice("openblas", None, threads, "test"))
    monkeypatch.setattr(mx, "default_device", lambda: mx.cpu)
    assert dense_layout.best_order() is order
