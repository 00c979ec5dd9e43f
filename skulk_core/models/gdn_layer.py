"""A gated delta net layer run row-exactly: mlx-lm's submodules, our rule, a record for the commit."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.gated_delta import compute_g, gated_delta_kernel

from skulk_core.cache.recurrent import KernelPass, OuterProductWrites, RecurrentCache
from skulk_core.models.elementwise import sigmoid, silu
from skulk_core.models.gated_delta import gated_delta_rule


@dataclass(frozen=True)
class Projections:
    """A GDN layer's input projections of ``T`` rows.

    ``qkv`` ``[1, T, 2 Hk Dk + Hv Dv]`` (before the convolution), ``z`` ``[1, T, Hv, Dv]`` (output gate), ``b``, ``a``
    ``[1, T, Hv]``.
    """

    qkv: mx.array
    z: mx.array
    b: mx.array
    a: mx.array


def has_kernel(key_dims: int) -> bool:
    """Whether mlx-lm's Metal kernel of the rule serves heads of ``key_dims``."""
    return mx.default_device() == mx.gpu and mx.metal.is_available() and key_dims % 32 == 0


class GatedDeltaLayer:
    """Runs one GDN ``module`` of mlx-lm (Qwen3-Next or Qwen3.5): its weights, this project's rule and cache.

    Follows `GatedDeltaNet.__call__` of mlx-lm without padding masks (one sequence needs none).
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._hk, self._hv = module.num_k_heads, module.num_v_heads
        self._dk, self._dv = module.head_k_dim, module.head_v_dim
        # constants of every pass, worked out once
        self._decay_rate = -mx.exp(module.A_log.astype(mx.float32))
        self._dt_bias = module.dt_bias.astype(mx.float32)
        self._taps = module.conv1d.weight.squeeze(-1).T
        # q and k are L2-normalised; the read-out scale Dk^-0.5 is folded into q (mlx-lm's `normalize_qk`)
        scale = self._dk**-0.5
        self._norm_eps = 1e-6 * scale**2
        self._norm_scale = mx.array([scale**2] * self._hk + [scale] * self._hk)[:, None].astype(self._taps.dtype)
        mx.eval(self._decay_rate, self._dt_bias, self._taps, self._norm_scale)

    def __call__(self, projections: Projections, cache: RecurrentCache) -> mx.array:
        """Output ``[1, T, H]``; feeds ``cache``."""
        module, rows, dtype = self._module, projections.qkv.shape[1], projections.qkv.dtype
        window = cache.zeros_like_window(module.conv_kernel_size, module.conv_dim, dtype)
        conv_input = mx.concatenate([window, projections.qkv], axis=1)
        qk, v = mx.split(silu(self._convolve(conv_input)), [2 * module.key_dim], axis=-1)
        qk = mx.fast.rms_norm(qk.reshape(rows, 2 * self._hk, self._dk), None, self._norm_eps) * self._norm_scale
        state = cache.state
        if state is None:
            state = mx.zeros((self._hk, self._hv // self._hk, self._dv, self._dk), mx.float32)
        inputs = _PassInputs(qk, v.reshape(rows, self._hv, self._dv), projections.a, projections.b, state)
        outputs, record = self._by_kernel(inputs) if has_kernel(self._dk) else self._by_rule(inputs)
        cache.feed(conv_input, record)
        # `RMSNormGated`: normalised in float32, gated by silu(z) in float32
        normed = mx.fast.rms_norm(outputs, module.norm.weight, module.norm.eps)
        gated = (silu(projections.z.astype(mx.float32)) * normed).astype(dtype)
        out: mx.array = module.out_proj(gated.reshape(1, rows, -1))
        return out

    def _convolve(self, conv_input: mx.array) -> mx.array:
        """Causal depthwise convolution: ``[1, K - 1 + T, C]`` to ``[T, C]``."""
        taps, channels = self._taps.shape
        rows = conv_input.shape[1] - taps + 1
        windows = mx.as_strided(conv_input, (rows, taps, channels), (channels, channels, 1))
        out: mx.array = (windows * self._taps).sum(axis=1)
        return out

    def _by_rule(self, inputs: "_PassInputs") -> tuple[mx.array, OuterProductWrites]:
        """Outputs ``[1, T, Hv, Dv]`` and the record, by the closed form."""
        rows, hk, hv, dk, dv = inputs.v.shape[0], self._hk, self._hv, self._dk, self._dv
        # [T, 2 Hk, Dk] to [Hk, 1, 2 T, Dk]: the queries of a head, then its keys
        qk = inputs.qk.astype(mx.float32).reshape(rows, 2, hk, dk).transpose(2, 1, 0, 3).reshape(hk, 1, 2 * rows, dk)
        v = inputs.v.astype(mx.float32).transpose(1, 0, 2).reshape(hk, hv // hk, rows, dv)
        log_decay = self._decay_rate * nn.softplus(inputs.a.astype(mx.float32) + self._dt_bias)
        beta = sigmoid(inputs.b.astype(mx.float32))
        per_head = (hk, hv // hk, rows)
        outputs, record = gated_delta_rule(
            qk, v, log_decay.swapaxes(1, 2).reshape(per_head), beta.swapaxes(1, 2).reshape(per_head), inputs.state
        )
        return outputs.reshape(1, hv, rows, dv).swapaxes(1, 2), record

    def _by_kernel(self, inputs: "_PassInputs") -> tuple[mx.array, KernelPass]:
        """The same by mlx-lm's Metal kernel; the writes only if a commit asks for them."""
        rows = inputs.v.shape[0]
        q, k = mx.split(inputs.qk, 2, axis=1)
        g = compute_g(self._module.A_log, inputs.a, self._module.dt_bias)
        state = inputs.state.reshape(1, self._hv, self._dv, self._dk)
        outputs, final = gated_delta_kernel(q[None], k[None], inputs.v[None], g, mx.sigmoid(inputs.b), state)
        return outputs, KernelPass(final.reshape(inputs.state.shape), rows, lambda: self._by_rule(inputs)[1])


@dataclass(frozen=True)
class _PassInputs:
    """One pass: normalised ``qk`` ``[T, 2 Hk, Dk]``, ``v`` ``[T, Hv, Dv]``, ``a``, ``b`` ``[1, T, Hv]``, the state."""

    qk: mx.array
    v: mx.array
    a: mx.array
    b: mx.array
    state: mx.array
