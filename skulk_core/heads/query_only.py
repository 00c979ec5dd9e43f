"""A decoder layer of mlx-lm's `gemma4_text` without keys and values of its own: it attends to those of a target."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from skulk_core.models.attention import attend, heads_first
from skulk_core.models.dense_layout import in_rows
from skulk_core.models.gemma4_layer import RotaryTable
from skulk_core.models.light import linear, row_norm
from skulk_core.numerics.elementwise import geglu

# Heads beyond this size are turned by their angles: as one product they would cost more than its operations.
_LARGEST_MATRIX = 256


class Turns:
    """RoPE of one kind of layer, at positions of which each is used by several layers and passes."""

    def __init__(self, rope: Any, head_dim: int) -> None:
        self._table, self._head_dim = RotaryTable(rope), head_dim
        half = head_dim // 2
        self._same = mx.eye(head_dim)
        self._other = mx.roll(self._same, half, 0)

    def at(self, num_rows: int, position: int) -> Callable[[mx.array], mx.array]:
        """Turns ``[T, H, D]`` of rows from ``position`` on; what is alike for all of them is worked out here.

        One row is turned by one product on a CPU, where the number of operations is the cost.
        """
        angles = self._table.angles(num_rows, position)
        if angles is None or num_rows > 1 or self._head_dim > _LARGEST_MATRIX:
            return lambda x: self._table.rotate(x, angles, position)
        cosines, sines = (half.reshape(1, -1) for half in angles)
        matrix = self._same * mx.concatenate([cosines, cosines], axis=-1)
        matrix = matrix + self._other * mx.concatenate([-sines, sines], axis=-1)
        return lambda x: _as(x @ matrix, x.dtype)


class QueryOnlyLayer:
    """Runs one layer over rows ``[T, h]``. Its weights are mlx-lm's; follows `DecoderLayer.__call__`."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.kind: str = layer.layer_type
        self._num_heads, self._scale = attention.n_heads, float(attention.scale)
        self._query_norm, *norms = (
            row_norm(norm)
            for norm in (
                attention.q_norm,
                layer.input_layernorm,
                layer.post_attention_layernorm,
                layer.pre_feedforward_layernorm,
                layer.post_feedforward_layernorm,
            )
        )
        self._enter_attention, self._leave_attention, self._enter_mlp, self._leave_mlp = norms
        self._q, self._o = linear(attention.q_proj), linear(attention.o_proj)
        self._gate, self._up, self._down = linear(mlp.gate_proj), linear(mlp.up_proj), linear(mlp.down_proj)
        self._scalar = layer.layer_scalar

    def __call__(
        self,
        h: mx.array,
        keys_values: tuple[mx.array, mx.array],
        mask: mx.array | None,
        turn: Callable[[mx.array], mx.array],
    ) -> mx.array:
        """Rows ``[T, h]`` after the layer, over keys and values ``[1, Hkv, K, D]``.

        ``mask`` is `attend`'s, ``turn`` that of this kind of layer for the rows' positions.
        """
        keys, values = keys_values
        rows = h.shape[0]
        queries = self._query_norm(self._q(self._enter_attention(h)).reshape(rows, self._num_heads, -1))
        # the keys are long and the queries are not: those are what is cast where the two differ
        seen = attend(heads_first(_as(turn(queries), keys.dtype)), keys, values, mask, self._scale)
        h = h + self._leave_attention(self._o(_as(in_rows(seen), h.dtype)))
        x = self._enter_mlp(h)
        out: mx.array = (h + self._leave_mlp(self._down(geglu(self._gate(x), self._up(x))))) * self._scalar
        return out


def _as(x: mx.array, dtype: mx.Dtype) -> mx.array:
    """A cast of the same dtype is an operation too."""
    return x if x.dtype == dtype else x.astype(dtype)
