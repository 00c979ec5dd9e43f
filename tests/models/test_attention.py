"""Attention in our formulation against MLX's own."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.base import create_causal_mask
from tiny_models import assert_close

from skulk_core.models import attention

HEADS, DIMS = 4, 16


def drawn(*shape: int, seed: int, scale: float = 1.0) -> mx.array:
    return mx.array((scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32))


@pytest.fixture(params=[True, False], autouse=True)
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With either exponential, whatever this machine would take."""
    monkeypatch.setattr(attention, "power_is_faster", lambda scores: request.param)


def attend(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: mx.array | str | None) -> mx.array:
    """With the scale where a layer has it: in its queries."""
    return attention.attend(queries * scale, keys, values, mask)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("rows", "before"), [(1, 0), (1, 77), (2, 0), (4, 300), (127, 1), (128, 0), (129, 0), (128, 128), (300, 41)]
)
@pytest.mark.parametrize("kind", ["causal", "none", "window"])
def test_attention_is_mlx_s(rows: int, before: int, kv_heads: int, kind: str) -> None:
    """Otherwise a trunk on a PC attends to rows that it must not see, or misses some."""
    queries = drawn(1, HEADS, rows, DIMS, seed=rows)
    keys, values = (drawn(1, kv_heads, before + rows, DIMS, seed=seed) for seed in (1, 2))
    mask = {"causal": "causal", "none": None}.get(kind)
    if kind == "window":
        mask = create_causal_mask(rows, before, window_size=7)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mask)
    assert_close(attend(queries, keys, values, 0.3, mask), expected, 1e-5)


def test_great_scores_do_not_overflow() -> None:
    """Otherwise one sharp head turns a whole text into NaN."""
    queries, keys, values = (drawn(1, HEADS, 5, DIMS, seed=seed, scale=30.0) for seed in range(3))
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask="causal")
    assert_close(attend(queries, keys, values, 1.0, "causal"), expected, 1e-4)
