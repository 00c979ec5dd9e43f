"""Exponentials that are not slow anywhere.

On an x86 CPU MLX 0.32's `exp` is a polynomial evaluated one element at a time through library calls: 14 to 24 ns an
element, while its `power` costs 6 (a 2-core AMD EPYC). At the widths of a verify pass or a prefill the activations
alone would cost as much as the matrices, so there `e ** x` is taken; it differs from `exp` by rounding.
"""

import math
import platform
from functools import cache

import mlx.core as mx


@cache
def power_is_faster() -> bool:
    """Whether MLX computes here on a CPU whose `exp` is slower than its `power`."""
    return mx.default_device() == mx.cpu and platform.machine() in ("x86_64", "AMD64")


@cache
def _e() -> mx.array:
    return mx.array(math.e, mx.float32)


def exp(x: mx.array) -> mx.array:
    """``e ** x``."""
    if x.dtype == mx.float32 and power_is_faster():
        return mx.power(_e(), x)
    return mx.exp(x)


def sigmoid(x: mx.array) -> mx.array:
    """``1 / (1 + e ** -x)``."""
    if x.dtype == mx.float32 and power_is_faster():
        return 1.0 / (1.0 + exp(-x))
    return mx.sigmoid(x)


def silu(x: mx.array) -> mx.array:
    """``x * sigmoid(x)``."""
    if x.dtype == mx.float32 and power_is_faster():
        return x / (1.0 + exp(-x))
    return x * mx.sigmoid(x)
