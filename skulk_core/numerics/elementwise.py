"""Exponentials that are not slow anywhere.

On an x86 CPU MLX 0.32's `exp` is a polynomial evaluated one element at a time through library calls: 14 to 24 ns an
element, while its `power` costs 6 (a 2-core AMD EPYC). At the widths of a verify pass or a prefill the activations
alone would cost as much as the matrices, so there `e ** x` is taken; it differs from `exp` by rounding. Activation
functions of wide passes do without either: polynomials that a compiler turns into vector instructions take 0.8 ns an
element (three million in 2.4 ms, where `e ** x` takes 15 and MLX's own function 48).
"""

import math
import os
import platform
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.activations import swiglu as mlx_lm_swiglu
from mlx_lm.models.gemma4_text import geglu as mlx_lm_geglu

from skulk_core.runtime import device

_Kernel = Callable[..., Any]

# Below this many elements the operations that the other form has more of cost more than its `exp` saves.
_LEAST_ELEMENTS = 8192

# From here on a polynomial's kernel saves more than its constants, inputs of it like others, cost whoever hands it out.
_LEAST_FOR_POLYNOMIALS = 2048

_GELU_SLOPE = 2 * math.sqrt(2 / math.pi)


def power_is_faster(x: mx.array, num_elements: int = _LEAST_ELEMENTS) -> bool:
    """Whether ``e ** x`` is cheaper than ``exp(x)`` for an array of this kind and at least so many elements."""
    return x.size >= num_elements and x.dtype == mx.float32 and _on_x86_cpu()


@cache
def _on_x86_cpu() -> bool:
    return mx.default_device() == mx.cpu and platform.machine() in ("x86_64", "AMD64")


@cache
def _e() -> mx.array:
    return mx.array(math.e, mx.float32)


def exp(x: mx.array) -> mx.array:
    """``e ** x``."""
    if power_is_faster(x):
        return mx.power(_e(), x)
    return mx.exp(x)


def sigmoid(x: mx.array) -> mx.array:
    """``1 / (1 + e ** -x)``."""
    if power_is_faster(x):
        return 1.0 / (1.0 + exp(-x))
    return mx.sigmoid(x)


def softmax(x: mx.array) -> mx.array:
    """``e ** x`` over its sum along the last axis, of ``x`` in float32."""
    if power_is_faster(x):
        weights = exp(x - x.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)
    return mx.softmax(x, axis=-1, precise=True)


def silu(x: mx.array) -> mx.array:
    """``x * sigmoid(x)``."""
    kernel = _fastest(x, nn.silu, _silu_by_power, _silu)
    out: mx.array = kernel(x)
    return out


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """``silu(gate) * x``, shapes alike."""
    kernel = _fastest(gate, mlx_lm_swiglu, _swiglu_by_power, _swiglu)
    out: mx.array = kernel(gate, x)
    return out


def geglu(gate: mx.array, x: mx.array) -> mx.array:
    """``gelu(gate) * x`` with GELU's tanh form, shapes alike."""
    kernel = _fastest(gate, mlx_lm_geglu, _geglu_by_power, _geglu)
    out: mx.array = kernel(gate, x)
    return out


def _fastest(x: mx.array, elsewhere: _Kernel, by_power: _Kernel, by_polynomial: _Kernel) -> _Kernel:
    """Which of three ways to one function suits ``x``."""
    if not power_is_faster(x, 0):
        return elsewhere
    return by_polynomial if x.size >= _LEAST_FOR_POLYNOMIALS and _fuses() else by_power


@cache
def _fuses() -> bool:
    """Whether MLX makes one kernel of many operations; one by one the polynomials would cost more than a power."""
    return device.compiler_path() is not None and "MLX_DISABLE_COMPILE" not in os.environ


# As one kernel each: 43 us for 3,072 elements where MLX's takes 81 and the single operations 75.


@partial(mx.compile, shapeless=True)
def _silu_by_power(x: mx.array) -> mx.array:
    return x / (1.0 + mx.power(math.e, -x))


@partial(mx.compile, shapeless=True)
def _swiglu_by_power(gate: mx.array, x: mx.array) -> mx.array:
    return gate / (1.0 + mx.power(math.e, -gate)) * x


@partial(mx.compile, shapeless=True)
def _geglu_by_power(gate: mx.array, x: mx.array) -> mx.array:
    # (1 + tanh u) / 2 = 1 / (1 + e ** -2u), with u = sqrt(2 / pi) (x + 0.044715 x^3)
    return gate / (1.0 + mx.power(math.e, -_GELU_SLOPE * (gate + 0.044715 * gate * gate * gate))) * x


# silu(x) = max(x, 0) - u / (1 + e^u) with u = |x|, and e^u = p(u)^4 with p(u) = prod(SCALE u (u + b) + c), which has
# no real roots. The last term is within 2e-8 of the exact one for every u (in float32 rounding adds 3e-7 of u), and
# vanishes where the power overflows (times another factor: where their product is finite). The numbers are a weighted
# least-squares fit of p exp(-u / 4) = 1 on [0, 18], weighted by max(u, 1) e^u / (1 + e^u)^2 and iterated towards the
# smallest largest error (Lawson's algorithm); then p's roots in pairs.
# The order of operations matters: MLX makes one kernel of at most 11 that follow one another, and to constants it
# gives the array's shape within the kernel only where it knows the shape, which `shapeless` hides from it.
_SCALE = 0.005854263516101856
_FACTORS = (
    (-25.631025334258425, 2.9638639220539917),
    (-2.441904828928718, 1.2585754272529557),
    (10.057195483854443, 0.6375716789986926),
    (15.77500953373584, 0.42046851384725975),
)


def _exp_of_size(u: mx.array) -> mx.array:
    """``e ** u`` for ``u >= 0``, good enough to be added to 1 and divided by; infinite for great ``u``."""
    scaled = u * _SCALE
    first, second, third, fourth = (scaled * (u + b) + c for b, c in _FACTORS)
    return mx.square(mx.square((first * second) * (third * fourth)))


@mx.compile
def _silu(x: mx.array) -> mx.array:
    u = mx.abs(x)
    return (x + u) * 0.5 - u / (1.0 + _exp_of_size(u))


@mx.compile
def _swiglu(gate: mx.array, x: mx.array) -> mx.array:
    return _times_sigmoid(gate, mx.abs(gate), x)


# Two kernels: what is too long for one MLX would cut in more than two.
def _geglu(gate: mx.array, x: mx.array) -> mx.array:
    out: mx.array = _gated(gate, _gelu_exponent(gate), x)
    return out


def _times_sigmoid(gate: mx.array, exponent: mx.array, x: mx.array) -> mx.array:
    """``gate * sigmoid(v) * x`` for the ``v`` of the gate's sign whose size is ``exponent``."""
    u = mx.abs(gate)
    return (gate + u) * (x * 0.5) - u * x / (1.0 + _exp_of_size(exponent))


_gated = mx.compile(_times_sigmoid)


@mx.compile
def _gelu_exponent(gate: mx.array) -> mx.array:
    """``|2 sqrt(2 / pi) (x + 0.044715 x^3)|``: (1 + tanh v) / 2 = 1 / (1 + e ** -2v)."""
    u = mx.abs(gate)
    return u * (_GELU_SLOPE + _GELU_SLOPE * 0.044715 * mx.square(u))
