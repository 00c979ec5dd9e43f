"""A gated delta net layer run row-exactly: mlx-lm's submodules, our rule, a record for the commit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.gated_delta import gated_delta_kernel
from mlx_lm.models.qwen3_next import Qwen3NextMLP

from skulk_core.cache.recurrent import KernelPass, OuterProductWrites, RecurrentCache
from skulk_core.models.dense_layout import in_rows, join
from skulk_core.models.gated_delta import gated_delta_rule
from skulk_core.models.light import RowNorm, begin, is_small, linear, row_norm
from skulk_core.numerics.elementwise import sigmoid, silu, swiglu

# (qkv, z, b, a) of T rows: qkv [T, 2 Hk Dk + Hv Dv] as the convolution takes it, z [T, Hv Dv] the output gate,
# b and a [T, Hv]
Projections = tuple[mx.array, mx.array, mx.array, mx.array]


def has_kernel(key_dims: int) -> bool:
    """Whether mlx-lm's Metal kernel of the rule serves heads of ``key_dims``."""
    return mx.default_device() == mx.gpu and mx.metal.is_available() and key_dims % 32 == 0


class SecondHalf:
    """The part of a layer after its mixer: norm, MLP (dense or sparse), residual."""

    def __init__(self, layer: Any) -> None:
        norm, self._mlp = layer.post_attention_layernorm, layer.mlp
        self._norm, self._dense = row_norm(norm), isinstance(layer.mlp, Qwen3NextMLP)
        if self._dense:
            self._gated, self._down = _gated(layer.mlp), linear(layer.mlp.down_proj)

    def __call__(self, h: mx.array) -> mx.array:
        """Rows ``[T, H]`` after the layer."""
        begin(h.shape[0], h)
        x = self._norm(h)
        return h + (self._down(self._gated(x)) if self._dense else self._mlp(x))


def _gated(mlp: Any) -> Callable[[mx.array], mx.array]:
    """``swiglu`` of both input projections of a dense ``mlp``, as a function of rows ``[T, H]``."""
    joined = join((mlp.gate_proj, mlp.up_proj))
    if joined is None:
        gate, up = linear(mlp.gate_proj), linear(mlp.up_proj)
        return lambda x: swiglu(gate(x), up(x))
    # gate and up stay in tiles; only their product is brought into rows
    return lambda x: in_rows(swiglu(*mx.split(x @ joined, 2)))


class GatedDeltaLayer:
    """Runs one layer of mlx-lm (Qwen3-Next or Qwen3.5) whose mixer is a gated delta net.

    Its weights are mlx-lm's; rule and cache are this project's. Follows `GatedDeltaNet.__call__` without padding masks
    (one sequence needs none). ``project(x)`` is the family's way of making `Projections`.
    """

    def __init__(self, layer: Any, project: Callable[[mx.array], Projections]) -> None:
        self._module, self._project = layer.linear_attn, project
        module = self._module
        self._hk, self._hv = module.num_k_heads, module.num_v_heads
        self._dk, self._dv = module.head_k_dim, module.head_v_dim
        # constants of every pass, worked out once
        self._decay_rate = -mx.exp(module.A_log.astype(mx.float32))
        self._dt_bias = module.dt_bias.astype(mx.float32)
        self._taps = module.conv1d.weight.squeeze(-1).T
        # q and k are L2-normalised; the read-out scale Dk^-0.5 is folded into q (mlx-lm's `normalize_qk`)
        scale = self._dk**-0.5
        scales = mx.array([scale**2] * self._hk + [scale] * self._hk)[:, None].astype(self._taps.dtype)
        self._qk_norm = RowNorm(mx.broadcast_to(scales, (2 * self._hk, self._dk)), 1e-6 * scale**2)
        self._input_norm = row_norm(layer.input_layernorm)
        self._output_norm = RowNorm(module.norm.weight.astype(mx.float32), module.norm.eps)
        self._out = linear(module.out_proj)
        self._second_half = SecondHalf(layer)
        mx.eval(self._decay_rate, self._dt_bias, self._taps)

    def __call__(self, h: mx.array, cache: RecurrentCache) -> mx.array:
        """Rows ``[T, H]`` after the layer; feeds ``cache``."""
        kernel_size, channels = self._taps.shape
        window = cache.window_or_zeros(kernel_size, channels, self._taps.dtype)
        state = cache.state
        if state is None:
            state = mx.zeros((self._hk, self._hv // self._hk, self._dv, self._dk), mx.float32)
        if has_kernel(self._dk):
            return self._by_kernel(h, window, state, cache)
        return self._by_rule(h, window, state, cache)

    def _by_rule(self, h: mx.array, window: mx.array, state: mx.array, cache: RecurrentCache) -> mx.array:
        """The layer by the closed form of its rule."""
        qkv, z, b, a = self._projected(h)
        conv_input = mx.concatenate([window, qkv])
        convolved = self._convolved(conv_input)
        begin(h.shape[0], *convolved)
        outputs, record = self._recurrence(*convolved, b, a, state)
        begin(h.shape[0], outputs)
        cache.feed(conv_input, record)
        return self._finished(h, outputs, z)

    def _by_kernel(self, h: mx.array, window: mx.array, state: mx.array, cache: RecurrentCache) -> mx.array:
        """The same by mlx-lm's Metal kernel; the writes only if a commit asks for them."""
        rows = h.shape[0]
        qkv, z, b, a = self._projected(h)
        conv_input = mx.concatenate([window, qkv])
        qk, v = self._convolved(conv_input)
        q, k = mx.split(qk, 2, axis=1)
        # the same gates as the writes of a shorter commit
        log_decay, beta = self._gates(b, a)
        g = mx.exp(log_decay)
        flat = state.reshape(1, self._hv, self._dv, self._dk)
        outputs, final = gated_delta_kernel(q[None], k[None], v[None], g[None], beta[None], flat)
        writes = partial(self._recurrence, qk, v, b, a, state)
        cache.feed(conv_input, KernelPass(final.reshape(state.shape), rows, lambda: writes()[1]))
        return self._finished(h, outputs.squeeze(0), z)

    def _projected(self, h: mx.array) -> Projections:
        projected = self._project(self._input_norm(h))
        begin(h.shape[0], *projected)
        return projected

    def _finished(self, h: mx.array, outputs: mx.array, z: mx.array) -> mx.array:
        """Gate, project and add ``outputs`` ``[T, Hv, Dv]``, then the MLP."""
        # `RMSNormGated`: normalised and gated by silu(z) in float32
        gated = swiglu(z.astype(mx.float32).reshape(outputs.shape), self._output_norm(outputs.astype(mx.float32)))
        return self._second_half(h + self._out(gated.astype(h.dtype).reshape(z.shape)))

    def _convolved(self, conv_input: mx.array) -> tuple[mx.array, mx.array]:
        """``[K - 1 + T, C]`` convolved: normalised ``qk`` ``[T, 2 Hk, Dk]`` and ``v`` ``[T, Hv, Dv]``."""
        qk, v = mx.split(silu(self._windowed(conv_input)), [2 * self._hk * self._dk], axis=-1)
        return self._qk_norm(qk.reshape(-1, 2 * self._hk, self._dk)), v.reshape(-1, self._hv, self._dv)

    def _windowed(self, conv_input: mx.array) -> mx.array:
        """The depthwise convolution, ``[T, C]``."""
        taps, channels = self._taps.shape
        rows = conv_input.shape[0] - taps + 1
        if is_small(conv_input):
            out: mx.array = (
                mx.as_strided(conv_input, (rows, taps, channels), (channels, channels, 1)) * self._taps
            ).sum(axis=1)
            return out
        if mx.default_device() != mx.cpu:
            convolved: mx.array = self._module.conv1d(conv_input[None])
            return convolved.squeeze(0)
        # tap by tap, nothing of [T, K, C] is made
        out = conv_input[:rows] * self._taps[0]
        for tap in range(1, taps):
            out = out + conv_input[tap : rows + tap] * self._taps[tap]
        return out

    def _gates(self, b: mx.array, a: mx.array) -> tuple[mx.array, mx.array]:
        """``log g_t`` and ``beta_t`` ``[T, Hv]``, float32."""
        log_decay = self._decay_rate * nn.softplus(a.astype(mx.float32) + self._dt_bias)
        return log_decay, sigmoid(b.astype(mx.float32))

    def _recurrence(
        self, qk: mx.array, v: mx.array, b: mx.array, a: mx.array, state: mx.array
    ) -> tuple[mx.array, OuterProductWrites]:
        """Outputs ``[T, Hv, Dv]`` and the record, by the closed form, of what `_convolved` and `_projected` gave."""
        rows, hk, hv, dk, dv = v.shape[0], self._hk, self._hv, self._dk, self._dv
        # [T, 2 Hk, Dk] to [Hk, 1, 2 T, Dk]: the queries of a head, then its keys
        qk = qk.astype(mx.float32).reshape(rows, 2, hk, dk).transpose(2, 1, 0, 3).reshape(hk, 1, 2 * rows, dk)
        v = v.astype(mx.float32).transpose(1, 0, 2).reshape(hk, hv // hk, rows, dv)
        log_decay, beta = self._gates(b, a)
        per_head = (hk, hv // hk, rows)
        outputs, record = gated_delta_rule(qk, v, log_decay.T.reshape(per_head), beta.T.reshape(per_head), state)
        return outputs.reshape(hv, rows, dv).swapaxes(0, 1), record
