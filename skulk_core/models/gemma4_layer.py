"""One Gemma 4 layer over mlx-lm's submodules: attention with its own or another layer's K/V, MLP, layer input."""

from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.rope_utils import ProportionalRoPE

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.borrowed import BorrowedCache
from skulk_core.cache.window import WindowCache
from skulk_core.models.attention import attend, heads_first
from skulk_core.models.dense_layout import in_rows
from skulk_core.models.light import RowNorm, is_small, linear, row_norm
from skulk_core.numerics.elementwise import geglu

# Positions whose angles are worked out at first; then twice as many whenever a text grows beyond them.
_LEAST_POSITIONS = 1024


@dataclass(frozen=True)
class Lent:
    """Keys and values ``[1, Hkv, K, D]`` that a pass's queries may see, and the position of its first row."""

    keys: mx.array
    values: mx.array
    offset: int


@dataclass
class Pass:
    """What the layers of one pass have in common.

    ``inputs``: the input ``[T, P]`` of each of this host's layers, None in sizes without. Then by layer type what the
    last layer of it with K/V of its own lends to later ones, and the angles of the rows.
    """

    inputs: list[mx.array] | None = None
    lent: dict[str, Lent] = field(default_factory=dict)
    angles: dict[str, tuple[mx.array, mx.array]] = field(default_factory=dict)


class RotaryTable:
    """RoPE of ``[T, heads, D]``: on a CPU with angles from a table, else by mlx-lm's module."""

    def __init__(self, rope: Any) -> None:
        self._rope, self._tables = rope, (mx.zeros((0,)), mx.zeros((0,)))
        if type(rope) is nn.RoPE and not rope.traditional:
            self._periods: mx.array | None = rope.base ** (mx.arange(0, rope.dims, 2) / rope.dims) / rope.scale
        elif type(rope) is ProportionalRoPE and not rope.traditional:
            self._periods = rope._freqs  # infinite for the part that does not turn
        else:
            self._periods = None

    def angles(self, num_rows: int, offset: int) -> tuple[mx.array, mx.array] | None:
        """Cosines and sines ``[T, 1, D / 2]`` for rows from position ``offset`` on; None where none are needed."""
        if self._periods is None or mx.default_device() != mx.cpu:
            return None
        end = offset + num_rows
        if end > self._tables[0].shape[0]:
            positions = mx.arange(max(_LEAST_POSITIONS, 1 << (end - 1).bit_length()), dtype=mx.float32)
            # times the inverse, as transformers and mlx-lm round it: a quotient is off by 1e-4 after 1,000 positions
            angles = positions[:, None, None] * (1.0 / self._periods)
            self._tables = mx.cos(angles), mx.sin(angles)
            mx.async_eval(*self._tables)
        return self._tables[0][offset:end], self._tables[1][offset:end]

    def rotate(self, x: mx.array, angles: tuple[mx.array, mx.array] | None, offset: int) -> mx.array:
        """``x`` whose first row is at ``offset``, turned by what `angles` gave."""
        if angles is None:
            turned: mx.array = self._rope(x.swapaxes(0, 1)[None], offset=offset)
            return turned.squeeze(0).swapaxes(0, 1)
        cosines, sines = angles
        first, second = mx.split(x, 2, axis=-1)
        turned = mx.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
        # the angles are float32; activations keep their dtype
        return turned if turned.dtype == x.dtype else turned.astype(x.dtype)


class Gemma4Attention:
    """Attention of one layer, after its input norm; scores are not scaled. Follows `gemma4_text.Attention`."""

    def __init__(self, module: Any, table: RotaryTable, lends: bool) -> None:
        self._lends = lends
        self._kind, self._num_heads, self._table = module.layer_type, module.n_heads, table
        self._q, self._o = linear(module.q_proj), linear(module.o_proj)
        weight, eps = module.q_norm.weight, module.q_norm.eps
        self._q_norm, self._has_kv = RowNorm(weight, eps), module.has_kv
        if not module.has_kv:
            return
        self._num_kv, self._k = module.n_kv_heads, linear(module.k_proj)
        # some full layers' values are their keys, before norm and RoPE
        self._v = None if module.use_k_eq_v else linear(module.v_proj)
        ones = mx.ones_like(module.k_norm.weight)
        self._k_norm, self._v_norm = RowNorm(module.k_norm.weight, eps), RowNorm(ones, eps)
        each = [weight] * self._num_heads + [module.k_norm.weight] * self._num_kv + [ones] * self._num_kv
        self._norms = RowNorm(mx.stack(each), eps)

    def __call__(self, x: mx.array, mask: Any, cache: LayerCache, in_common: Pass) -> mx.array:
        """Rows ``[T, H]`` of ``x`` attended to; feeds ``cache``."""
        rows = x.shape[0]
        if isinstance(cache, BorrowedCache):
            lent = in_common.lent[self._kind]
            queries = self._q_norm(self._q(x).reshape(rows, self._num_heads, -1))
            queries = self._table.rotate(queries, self._angles(in_common, rows, lent.offset), lent.offset)
            cache.feed(rows)
        else:
            assert isinstance(cache, AttentionCache | WindowCache)
            offset = cache.offset
            queries, keys, values = self._projected(x, self._angles(in_common, rows, offset), offset)
            fetched = cache.update_and_fetch(heads_first(keys), heads_first(values))
            lent = Lent(*fetched, offset)
            if self._lends:
                in_common.lent[self._kind] = lent
        out = attend(heads_first(queries), lent.keys, lent.values, mask)
        return self._o(in_rows(out))

    def _angles(self, in_common: Pass, rows: int, offset: int) -> tuple[mx.array, mx.array] | None:
        if self._kind not in in_common.angles:
            found = self._table.angles(rows, offset)
            if found is None:
                return None
            in_common.angles[self._kind] = found
        return in_common.angles[self._kind]

    def _projected(
        self, x: mx.array, angles: tuple[mx.array, mx.array] | None, offset: int
    ) -> tuple[mx.array, mx.array, mx.array]:
        """Queries ``[T, Hq, D]``, keys and values ``[T, Hkv, D]``, normed, all but the values rotated."""
        rows = x.shape[0]
        queries, keys = self._q(x).reshape(rows, self._num_heads, -1), self._k(x).reshape(rows, self._num_kv, -1)
        values = keys if self._v is None else self._v(x).reshape(rows, self._num_kv, -1)
        if not is_small(x):
            queries = self._table.rotate(self._q_norm(queries), angles, offset)
            return queries, self._table.rotate(self._k_norm(keys), angles, offset), self._v_norm(values)
        # together, where the number of operations is the cost
        heads = self._norms(mx.concatenate([queries, keys, values], axis=1))
        heads, values = mx.split(heads, [self._num_heads + self._num_kv], axis=1)
        queries, keys = mx.split(self._table.rotate(heads, angles, offset), [self._num_heads], axis=1)
        return queries, keys, values


class Gemma4Layer:
    """Runs one layer of mlx-lm's `gemma4_text`. Its weights are mlx-lm's; follows `DecoderLayer.__call__`."""

    def __init__(self, layer: Any, table: RotaryTable, *, lends: bool) -> None:
        self._layer, self._attention = layer, Gemma4Attention(layer.self_attn, table, lends)
        self._input_norm = row_norm(layer.input_layernorm)
        self._attention_norm = row_norm(layer.post_attention_layernorm)
        self._mlp_norm = row_norm(layer.pre_feedforward_layernorm)
        self._last_norm = row_norm(layer.post_feedforward_layernorm)
        mlp = layer.mlp
        self._gate, self._up, self._down = linear(mlp.gate_proj), linear(mlp.up_proj), linear(mlp.down_proj)
        self._sparse = bool(layer.enable_moe)
        if self._sparse:
            self._dense_out_norm = row_norm(layer.post_feedforward_layernorm_1)
            self._experts_norm = row_norm(layer.pre_feedforward_layernorm_2)
            self._experts_out_norm = row_norm(layer.post_feedforward_layernorm_2)
        if layer.hidden_size_per_layer_input:
            self._input_gate, self._input_out = linear(layer.per_layer_input_gate), linear(layer.per_layer_projection)
            self._input_out_norm = row_norm(layer.post_per_layer_input_norm)

    def __call__(
        self, h: mx.array, mask: Any, cache: LayerCache, in_common: Pass, own_input: mx.array | None
    ) -> mx.array:
        """Rows ``[T, H]`` after the layer; feeds ``cache``. ``own_input`` ``[T, P]`` in sizes that have it."""
        attended = self._attention(self._input_norm(h), mask, cache, in_common)
        h = h + self._attention_norm(attended)
        h = h + self._last_norm(self._fed_forward(h))
        if own_input is not None:
            h = h + self._input_out_norm(self._input_out(geglu(self._input_gate(h), own_input)))
        out: mx.array = h * self._layer.layer_scalar
        return out

    def _fed_forward(self, h: mx.array) -> mx.array:
        x = self._mlp_norm(h)
        out = self._down(geglu(self._gate(x), self._up(x)))
        if not self._sparse:
            return out
        experts = self._layer.experts(self._experts_norm(h), *self._layer.router(h))
        return self._dense_out_norm(out) + self._experts_out_norm(experts)
