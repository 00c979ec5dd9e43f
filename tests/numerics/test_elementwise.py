"""The cheaper exponentials against numpy, at every size of argument."""

import math

import mlx.core as mx
import numpy as np
import pytest

from skulk_core.numerics import elementwise

# as many as the cheaper forms are for
ARGUMENTS = np.concatenate([np.linspace(-80.0, 80.0, 9001), [-0.0, 1e-30, -200.0, -1e4, -math.inf]]).astype(np.float32)
GREAT = np.array([100.0, 200.0, 1e4], np.float32)


@pytest.fixture(params=["x86 with g++", "x86 without", "elsewhere"], autouse=True)
def _every_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an x86 CPU whose operations are fused or are not, and as elsewhere."""
    on_x86, fuses = request.param != "elsewhere", request.param == "x86 with g++"
    monkeypatch.setattr(elementwise, "_on_x86_cpu", lambda: on_x86)
    monkeypatch.setattr(elementwise, "_fuses", lambda: fuses)


def check(actual: mx.array, expected: np.ndarray) -> None:
    """To rounding, which grows with the argument; never NaN."""
    np.testing.assert_allclose(np.array(actual), expected.astype(np.float32), rtol=2e-5, atol=1e-36)


def check_activation(actual: mx.array, expected: np.ndarray) -> None:
    """To rounding of values near 1: far below zero it is as good as nothing, and need not be exactly that."""
    np.testing.assert_allclose(np.array(actual), expected.astype(np.float32), rtol=1e-6, atol=1e-6)


def factors(num_values: int) -> np.ndarray:
    """What is gated: nowhere so small that an error of the gate would vanish in it."""
    return np.resize(np.array([-2.0, 0.5, 1.5], np.float32), num_values)


def test_exp() -> None:
    """Otherwise decays that should vanish become NaN, or states fade at the wrong speed."""
    check(elementwise.exp(mx.array(ARGUMENTS)), np.exp(ARGUMENTS.astype(np.float64)))


def test_sigmoid() -> None:
    """Otherwise a gate that is closed, or fully open, becomes NaN."""
    x = np.concatenate([ARGUMENTS, GREAT])
    check(elementwise.sigmoid(mx.array(x)), _sigmoid(x))


def test_silu() -> None:
    """Otherwise one large activation turns a whole text into NaN."""
    x = np.concatenate([ARGUMENTS[np.isfinite(ARGUMENTS)], GREAT])
    check_activation(elementwise.silu(mx.array(x)), x * _sigmoid(x))


def test_swiglu() -> None:
    """Otherwise every MLP is wrong."""
    x = np.concatenate([ARGUMENTS[np.isfinite(ARGUMENTS)], GREAT])
    other = factors(len(x))
    check_activation(elementwise.swiglu(mx.array(x), mx.array(other)), x * _sigmoid(x) * other)


def test_geglu() -> None:
    """Otherwise every MLP of Gemma is wrong."""
    x = np.concatenate([ARGUMENTS[np.isfinite(ARGUMENTS)], GREAT])
    other = factors(len(x))
    inner = math.sqrt(2 / math.pi) * (x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3)
    expected = x * (0.5 + 0.5 * np.tanh(inner)) * other
    check_activation(elementwise.geglu(mx.array(x), mx.array(other)), expected)


def test_softmax() -> None:
    """Otherwise tokens are drawn from another distribution; banned ones (-inf) keep a probability of exactly 0."""
    x = np.random.default_rng(0).normal(size=(3, 4096)).astype(np.float32) * np.array(
        [[1.0], [20.0], [1e4]], np.float32
    )
    x[:, ::7] = -math.inf
    weights = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    actual = np.array(elementwise.softmax(mx.array(x)))
    np.testing.assert_allclose(actual, weights / weights.sum(axis=-1, keepdims=True), rtol=2e-5, atol=1e-30)
    assert (actual[:, ::7] == 0).all()


@np.errstate(over="ignore")
def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_other_dtypes_keep_theirs(dtype: mx.Dtype) -> None:
    """Otherwise a bfloat16 model computes in float32, at twice the memory."""
    x = mx.array(ARGUMENTS, dtype)
    one_array = (elementwise.exp, elementwise.sigmoid, elementwise.silu)
    found = {f(x).dtype for f in one_array} | {f(x, x).dtype for f in (elementwise.swiglu, elementwise.geglu)}
    assert found == {dtype}


def test_each_form_is_taken_where_it_is_cheapest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a wide pass spends its time on activations, or a narrow one on handing out constants."""
    forms = ("elsewhere", "by power", "by polynomial")

    def taken(num_elements: int) -> str:
        return elementwise._fastest(mx.zeros(num_elements), *forms)  # type: ignore[arg-type,return-value]

    monkeypatch.setattr(elementwise, "_on_x86_cpu", lambda: True)
    monkeypatch.setattr(elementwise, "_fuses", lambda: True)
    assert [taken(n) for n in (1, 2047, 2048, 100_000)] == ["by power", "by power", "by polynomial", "by polynomial"]
    monkeypatch.setattr(elementwise, "_fuses", lambda: False)
    assert taken(100_000) == "by power"
    monkeypatch.setattr(elementwise, "_on_x86_cpu", lambda: False)
    assert taken(100_000) == "elsewhere"
