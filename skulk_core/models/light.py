"""The same arithmetic in fewer operations, for passes so small that the number of operations is their cost.

On a CPU every operation of MLX, a broadcast or a transpose too, costs about 5 microseconds of the thread that hands it
out; a pass over one row of a small model is nothing else. Large passes and other devices take MLX's own.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from skulk_core.models.dense_layout import TiledLinear, multiply

# Where a pass has more elements than this, computing them costs more than handing them out.
_MOST_ELEMENTS = 8192

# Rows of a pass that is handed over within its layers: the parts of a prompt keep a CPU busy as they are.
_MOST_BEGUN = 32

# The least number of positions whose angles are worked out at once.
_POSITIONS = 512


@dataclass
class _State:
    """Whether passes are computed; the one mutable thing here."""

    begins: bool = True


_state = _State()


def is_small(x: mx.array) -> bool:
    """Whether handing out operations on ``x`` costs more than computing them."""
    return is_few(x.size)


def is_few(num_elements: int) -> bool:
    """The same of an array of so many elements."""
    return num_elements <= _MOST_ELEMENTS and mx.default_device() == mx.cpu


def hand_over(*arrays: mx.array) -> None:
    """Let a CPU begin with ``arrays`` while what follows is being built. A GPU is given a pass as a whole."""
    if mx.default_device() == mx.cpu:
        mx.async_eval(*arrays)


def begin(num_rows: int, *arrays: mx.array) -> None:
    """`hand_over` in the middle of a layer of a small pass, where a CPU is done before the next layer has been built.

    Texts of the demo at depth 4 took 2 % less time so, paired in one process. ``num_rows`` are the pass's.
    """
    if num_rows <= _MOST_BEGUN and _state.begins:
        hand_over(*arrays)


@contextmanager
def nothing_begun() -> Iterator[None]:
    """For passes that are built for their shapes alone: nothing of them is computed."""
    _state.begins = False
    try:
        yield
    finally:
        _state.begins = True


def linear(module: Any) -> Callable[[mx.array], mx.array]:
    """``module`` as a function of rows ``[T, in]``; an unquantised one without transposing its weight every time."""
    if type(module) is TiledLinear and "bias" not in module:
        tiles = module.tiles
        return lambda x: multiply(x, tiles)
    if type(module) is not nn.Linear or "bias" in module:
        return lambda x: module(x)
    transposed = module.weight.T
    mx.eval(transposed)
    return lambda x: x @ transposed


class RowNorm:
    """RMS norm over the last axis: ``x * rsqrt(mean(x^2) + eps) * weight``.

    ``weight`` ends in an axis of the norm's size; axes before it (heads) each have their own.
    """

    def __init__(self, weight: mx.array, eps: float) -> None:
        size = weight.shape[-1]
        self._weight, self._eps = weight, eps
        # the mean's 1 / size moves out of the root: rsqrt(s / n + eps) = sqrt(n) * rsqrt(s + n eps)
        self._scaled_weight = (weight.astype(mx.float32) * math.sqrt(size)).astype(weight.dtype)
        self._shift = mx.array(eps * size, mx.float32)
        mx.eval(self._scaled_weight, self._shift)

    def __call__(self, x: mx.array, small: bool | None = None) -> mx.array:
        """``x`` of any shape that ends as the weight does.

        Small passes and others round differently: ``small`` says which, for a part of what another pass norms
        together; else the size of ``x`` does.
        """
        if x.dtype == mx.float32 and (is_small(x) if small is None else small):
            out: mx.array = _scale(x, mx.square(x).sum(axis=-1, keepdims=True), self._shift, self._scaled_weight)
            return out
        if self._weight.ndim == 1:
            return mx.fast.rms_norm(x, self._weight, self._eps)
        return mx.fast.rms_norm(x, None, self._eps) * self._weight


def row_norm(module: Any) -> RowNorm:
    """An `nn.RMSNorm`, or one of mlx-lm's with the same attributes."""
    return RowNorm(module.weight, module.eps)


# One kernel for every norm: each that is compiled costs a second of g++ when a machine runs it for the first time, so
# nothing else here is.
@partial(mx.compile, shapeless=True)
def _scale(x: mx.array, square_sum: mx.array, shift: mx.array, weight: mx.array) -> mx.array:
    return x * mx.rsqrt(square_sum + shift) * weight


class Rotary:
    """RoPE of ``[1, heads, T, D]`` by tables of angles, whatever the number of layers.

    Stands in for an `nn.RoPE` with halves (not interleaved pairs) where a pass is small; any other rope is called.
    """

    def __init__(self, rope: Any) -> None:
        self._rope = rope
        self.is_simple = type(rope) is nn.RoPE and not rope.traditional

    def rotate(self, x: mx.array, offset: int) -> mx.array:
        """``x`` rotated by tables; dimensions beyond the rope's pass through."""
        assert self.is_simple
        rope, (rows, dims) = self._rope, x.shape[-2:]
        cosines, sines = _angles(rope.dims, dims, rope.base, rope.scale, rows, offset)
        half = rope.dims // 2
        first, second, *rest = mx.split(x, [half, rope.dims][: 2 if rope.dims < dims else 1], axis=-1)
        turned: mx.array = x * cosines + mx.concatenate([second, first, *rest], axis=-1) * sines
        # the angles are float32; activations keep their dtype
        return turned if turned.dtype == x.dtype else turned.astype(x.dtype)

    def __call__(self, x: mx.array, offset: int, small: bool | None = None) -> mx.array:
        """``x`` rotated for rows from position ``offset`` on; ``small`` as `RowNorm`'s."""
        if self.is_simple and (is_small(x) if small is None else small):
            return self.rotate(x, offset)
        turned: mx.array = self._rope(x, offset=offset)
        return turned


@lru_cache(maxsize=4)
def _angles(
    rope_dims: int, dims: int, base: float, scale: float, num_rows: int, offset: int
) -> tuple[mx.array, mx.array]:
    """What `Rotary.rotate` multiplies ``num_rows`` rows by, ``[T, D]`` each; remembered for the layers of a pass."""
    start = offset - offset % _POSITIONS
    length = _POSITIONS << ((offset - start + num_rows - 1) // _POSITIONS).bit_length()
    cosines, sines = _angle_tables(rope_dims, dims, base, scale, start, length)
    return cosines[offset - start : offset - start + num_rows], sines[offset - start : offset - start + num_rows]


@lru_cache(maxsize=4)
def _angle_tables(
    rope_dims: int, dims: int, base: float, scale: float, start: int, length: int
) -> tuple[mx.array, mx.array]:
    """Cosines and signed sines of ``length`` positions from ``start`` on; 1 and 0 where nothing turns."""
    positions = mx.arange(start, start + length, dtype=mx.float32)[:, None] * scale
    angles = positions * mx.exp(mx.arange(rope_dims // 2, dtype=mx.float32) * (-2 * math.log(base) / rope_dims))
    cosines, sines, rest = mx.cos(angles), mx.sin(angles), mx.zeros((length, dims - rope_dims))
    tables = mx.concatenate([cosines, cosines, rest + 1], axis=-1), mx.concatenate([-sines, sines, rest], axis=-1)
    # not waited for: a text meets new ones every so many positions
    mx.async_eval(*tables)
    return tables
