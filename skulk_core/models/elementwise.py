"""Exponentials that are not slow anywhere.

On an x86 CPU MLX 0.32's `exp` is a polynomial evaluated one element at a time through library calls: 14 to 24 ns an
element, while its `power` costs 6 (a 2-core AMD EPYC). At the widths of a verify pass or a prefill the activations
alone would cost as much as the matrices, so there `e ** x` is taken; it differs from `exp` by rounding.
"""

import math
import platform
from functools import cache

import mlx.core as mx
import mlx.nn as nn

# Below this many elements the operations that the other form has more of cost more than its `exp` saves.
_LEAST_ELEMENTS = 8192


def power_is_faster(x: mx.array) -> bool:
    """Whether ``e ** x`` is cheaper than ``exp(x)`` for this array on this device."""
    return x.size >= _LEAST_ELEMENTS and x.dtype == mx.float32 and _on_x86_cpu()


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


def silu(x: mx.array) -> mx.array:
    """``x * sigmoid(x)``."""
    if power_is_faster(x):
        return x / (1.0 + exp(-x))
    out: mx.array = nn.silu(x)
    return out
