"""The formulations with fewer operations against the modules they stand in for."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from tiny_models import assert_close

from skulk_core.models import light


def drawn(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.fixture(params=[True, False], autouse=True)
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a small pass on a CPU, and as anywhere else."""
    monkeypatch.setattr(light, "is_small", lambda x: request.param)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_a_row_norm_is_mlx_s(rows: int, eps: float) -> None:
    """Otherwise every layer of a trunk is scaled wrongly."""
    norm = nn.RMSNorm(48, eps=eps)
    norm.weight = drawn(48, seed=1)
    x = drawn(rows, 48, seed=2)
    assert_close(light.RowNorm(norm.weight, eps)(x), norm(x), 1e-6)


def test_a_norm_of_heads_has_a_weight_for_each() -> None:
    """Otherwise queries and keys, normed together, take one another's weights."""
    weight, x = drawn(3, 16, seed=1), drawn(5, 3, 16, seed=2)
    expected = mx.stack([mx.fast.rms_norm(x[:, head], weight[head], 1e-6) for head in range(3)], axis=1)
    assert_close(light.RowNorm(weight, 1e-6)(x), expected, 1e-6)


def test_zeros_stay_zeros() -> None:
    assert mx.array_equal(light.RowNorm(drawn(8), 1e-6)(mx.zeros((2, 8))), mx.zeros((2, 8)))


@pytest.mark.parametrize("dims", [4, 16])
@pytest.mark.parametrize(("base", "scale"), [(10000.0, 1.0), (5e6, 0.25)])
@pytest.mark.parametrize(("offset", "rows"), [(0, 5), (1021, 6), (4000, 1), (511, 1), (512, 1), (700, 1400)])
def test_a_rotation_is_mlx_s(dims: int, base: float, scale: float, offset: int, rows: int) -> None:
    """Otherwise a model forgets where its words stand."""
    rope = nn.RoPE(dims, traditional=False, base=base, scale=scale)
    x = drawn(1, 3, rows, 16)
    rotary = light.Rotary(rope)
    assert rotary.is_simple
    assert_close(rotary.rotate(x, offset), rope(x, offset=offset), 2e-4)
    assert_close(rotary(x, offset), rope(x, offset=offset), 2e-4)


def test_a_rotation_keeps_the_dtype() -> None:
    """Otherwise a bfloat16 model computes in float32 from its first attention layer on."""
    rotary = light.Rotary(nn.RoPE(8, traditional=False))
    assert rotary.rotate(drawn(1, 3, 2, 16).astype(mx.bfloat16), 5).dtype == mx.bfloat16


def test_another_rope_is_called_as_it_is() -> None:
    rotary = light.Rotary(nn.RoPE(16, traditional=True))
    assert not rotary.is_simple
    x = drawn(1, 3, 2, 16)
    assert mx.array_equal(rotary(x, 9), nn.RoPE(16, traditional=True)(x, offset=9))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_itself(bias: bool) -> None:
    module = nn.Linear(32, 8, bias=bias)
    x = drawn(3, 32)
    assert_close(light.linear(module)(x), module(x), 1e-6)


def test_a_quantised_layer_is_called_as_it_is() -> None:
    module = nn.QuantizedLinear.from_linear(nn.Linear(64, 8, bias=False), 32, 4)
    x = drawn(3, 64)
    assert mx.array_equal(light.linear(module)(x), module(x))
