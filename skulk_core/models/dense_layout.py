"""Dense float32 weights in the order in which a CPU's BLAS multiplies a few rows by them fastest.

Checkpoints hold a matrix as ``[out, in]``. Milliseconds for ``x @ W.T`` with four matrices of 2048 x 2048, medians of
15 runs on one thread of a 2-core AMD EPYC (Zen 4) virtual machine, MLX 0.32.4, for 1 to 250 rows:

====================================  ====  ====  ====  ====  ====
library and order of the weights         1     2     5    64   250
====================================  ====  ====  ====  ====  ====
OpenBLAS with AVX-512, as stored      13.6  13.5  15.1    34    94
OpenBLAS with AVX-512, transposed     11.2  11.1  12.5    31    91
OpenBLAS with AVX-512, tiles of 32     5.8   6.4   7.7    33   107
OpenBLAS without, as stored            9.6  10.1  12.5    33    93
OpenBLAS without, transposed           7.4   7.4   9.2    27    87
OpenBLAS without, tiles of 32         10.7  10.2  13.2    34   110
BLIS, as stored                        4.6   6.8   8.1    46   157
BLIS, tiles of 32                      5.7   7.5   7.0    29    95
====================================  ====  ====  ====  ====  ====

OpenBLAS copies a matrix into its own order before every product, but for small ones where it has AVX-512: a tile of few
columns, ``[in, columns]``, is one. BLIS does without the copy for any matrix, and is left what it
finds: single rows, and its threads, would lose by tiles.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import accumulate
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from skulk_core.runtime import blas

# Rows of a matrix that are transposed together: their ends share cache lines. MLX's own copy takes six times as long.
_ROWS = 16
# OpenBLAS takes a product of M rows, N columns and K summands as it is where M N K is at most a million. Tiles this
# wide stay below for passes of 8 rows, and where that would make them too narrow for as many as can be.
_COLUMNS = ((1950, 64), (5200, 32), (1 << 16, 16))
# Threads of a BLAS beside which tiles were measured: they are multiplied one after another, each by one thread.
_MOST_THREADS = 2

# Weights of more elements are not joined: reading 16 MiB takes a core 0.8 ms, and the two or three operations that one
# product spares take 3 us each.
_MOST_JOINED = 1 << 22


class Order(Enum):
    """How the weights ``[out, in]`` of a product are stored."""

    AS_STORED = "as stored"
    TRANSPOSED = "transposed"
    TILED = "tiled"


def best_order() -> Order:
    """What suits the BLAS of this process, with the threads that it has now."""
    core = blas.openblas_core() if mx.default_device() == mx.cpu else None
    if core is None:
        return Order.AS_STORED
    few_threads = (blas.prepare().threads or 1) <= _MOST_THREADS
    return Order.TILED if core in blas.AVX512_CORES and few_threads else Order.TRANSPOSED


class TiledLinear(nn.Module):
    """An `nn.Linear` whose ``weight`` ``[out, in]`` is stored as tiles ``[out / columns, in, columns]``."""

    def __init__(self, weight: mx.array, columns: int, bias: mx.array | None = None) -> None:
        super().__init__()
        self.tiles = _stored_transposed(weight, columns)
        if bias is not None:
            self.bias = bias
        self.freeze()

    @property
    def weight(self) -> mx.array:
        """``[out, in]``, put together again: for who wants its shape, or a product of mlx-lm's own."""
        return _whole(self.tiles)

    def __call__(self, x: mx.array) -> mx.array:
        """``[..., out]`` of ``x`` ``[..., in]``."""
        out = multiply(x, self.tiles)
        return out + self.bias if "bias" in self else out


class TiledEmbedding(nn.Module):
    """An `nn.Embedding` that serves as the LM head too, its ``weight`` ``[V, H]`` in tiles ``[V / n, H, n]``."""

    def __init__(self, weight: mx.array, columns: int) -> None:
        super().__init__()
        self.tiles = _stored_transposed(weight, columns)
        self.freeze()

    @property
    def weight(self) -> mx.array:
        """``[V, H]``, put together again."""
        return _whole(self.tiles)

    def __call__(self, tokens: mx.array) -> mx.array:
        """Rows ``[..., H]`` of ``tokens`` ``[...]``."""
        columns = self.tiles.shape[-1]
        rows: mx.array = self.tiles.swapaxes(1, 2)[tokens // columns, tokens % columns]
        return rows

    def as_linear(self, x: mx.array) -> mx.array:
        """Logits ``[..., V]`` of ``x`` ``[..., H]``."""
        return multiply(x, self.tiles)


def _whole(tiles: mx.array) -> mx.array:
    return tiles.swapaxes(1, 2).reshape(-1, tiles.shape[1])


def multiply(x: mx.array, tiles: mx.array) -> mx.array:
    """``[..., out]`` of rows ``[..., in]`` and tiles ``[out / columns, in, columns]``."""
    if x.ndim == 2:
        return in_rows(x @ tiles)
    return in_rows(x.reshape(-1, x.shape[-1]) @ tiles).reshape(*x.shape[:-1], -1)


def in_rows(x: mx.array) -> mx.array:
    """``[T, n D]`` of ``[n, T, D]``: of tiles (a product of rows and tiles) or of heads, whose ``[1, H, T, D]`` too."""
    rows = x.shape[-2]
    return (x if rows == 1 else x.swapaxes(-3, -2)).reshape(rows, -1)


def in_heads(out: mx.array, head_dim: int) -> mx.array:
    """``[heads, T, D]`` of a product ``[n, T, columns]`` of rows and tiles, as it is where a tile is a head."""
    _, rows, columns = out.shape
    if columns == head_dim:
        return out
    parts = out.reshape(-1, head_dim // columns, rows, columns)
    return (parts if rows == 1 else parts.swapaxes(1, 2)).reshape(-1, rows, head_dim)


def whole_tiles(module: Any, width: int) -> bool:
    """Whether ``module`` is tiled and ``width`` columns of it are whole tiles."""
    return type(module) is TiledLinear and width % module.tiles.shape[-1] == 0


def join(modules: Sequence[Any]) -> mx.array | None:
    """The tiles of all ``modules`` one after another, ``[n, in, columns]``, of which each keeps its part as a view.

    None, and nothing is changed, unless all are tiled alike, have no bias and are small.
    """
    if any(type(module) is not TiledLinear or "bias" in module for module in modules):
        return None
    tiles = [module.tiles for module in modules]
    if len({one.shape[1:] for one in tiles}) > 1 or sum(one.size for one in tiles) > _MOST_JOINED:
        return None
    joined, ends = mx.concatenate(tiles), list(accumulate(one.shape[0] for one in tiles))
    for module, part in zip(modules, mx.split(joined, ends[:-1]), strict=True):
        module.tiles = part
    mx.eval(joined, *(module.tiles for module in modules))
    # MLX would keep the memory of what was joined
    tiles.clear()
    mx.clear_cache()
    return joined


def lay_out(modules: Iterable[nn.Module]) -> None:
    """Store the float32 matrices of every `nn.Linear` below ``modules`` in `best_order`; their values stay the same.

    Weights must have been read. While a matrix is moved, it is there three times, and the others of its module twice.
    """
    if best_order() is Order.AS_STORED:
        return

    def change(leaf: Any) -> Any:
        # embeddings that serve as LM heads are few, and known by name
        return laid_out(leaf) if type(leaf) is nn.Linear else leaf

    for module in modules:
        replaced = tree_map(change, module.leaf_modules(), is_leaf=nn.Module.is_module)
        module.update_modules(replaced)
        # MLX keeps freed memory for itself, and here it would be as much again as the weights
        mx.clear_cache()


def laid_out(module: Any) -> Any:
    """An `nn.Linear`, or an `nn.Embedding` that is an LM head, in `best_order`; anything else as it is."""
    order = best_order()
    if type(module) not in (nn.Linear, nn.Embedding) or module.weight.dtype != mx.float32:
        return module
    weight, columns = module.weight, _columns(*module.weight.shape) if order is Order.TILED else 0
    if order is Order.AS_STORED or (order is Order.TILED and not columns):
        return module
    if order is Order.TRANSPOSED:
        module.weight = _stored_transposed(weight, weight.shape[0]).squeeze(0).T
        mx.eval(module.weight)
        return module
    bias = module.get("bias")
    return TiledEmbedding(weight, columns) if type(module) is nn.Embedding else TiledLinear(weight, columns, bias)


def _columns(out: int, size: int) -> int:
    """Columns of a tile of a matrix ``[out, size]``; 0 for one that has no whole tiles."""
    most = next((columns for largest, columns in _COLUMNS if size <= largest), 0)
    return next((columns for columns in (64, 32, 16) if columns <= most and out % columns == 0), 0)


def _stored_transposed(weight: mx.array, columns: int) -> mx.array:
    """``[out, in]`` as ``[out / columns, in, columns]``."""
    rows = np.asarray(weight)
    out, size = rows.shape
    tiles = np.empty((out // columns, size, columns), rows.dtype)
    for start in range(0, out, step := min(_ROWS, columns)):
        tile, column = divmod(start, columns)
        tiles[tile, :, column : column + step] = rows[start : start + step].T
    made = mx.array(tiles)
    mx.eval(made)
    return made
