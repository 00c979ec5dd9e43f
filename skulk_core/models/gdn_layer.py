"""A gated delta net layer run row-exactly: mlx-lm's submodules, our rule, a record for the commit."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.gated_delta import compute_g, gated_delta_kernel, normalize_qk

from skulk_core.cache.recurrent import KernelPass, OuterProductWrites, RecurrentCache
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


def run_gated_delta(module: Any, projections: Projections, cache: RecurrentCache) -> mx.array:
    """Output ``[1, T, H]`` of a GDN ``module`` (Qwen3-Next or Qwen3.5); feeds ``cache``.

    Follows `GatedDeltaNet.__call__` of mlx-lm without padding masks (one sequence, none needed).
    """
    hk, hv = module.num_k_heads, module.num_v_heads
    dk, dv = module.head_k_dim, module.head_v_dim
    rows = projections.qkv.shape[1]
    window = cache.zeros_like_window(module.conv_kernel_size, module.conv_dim, projections.qkv.dtype)
    conv_input = mx.concatenate([window, projections.qkv], axis=1)
    conv = nn.silu(depthwise_conv(conv_input, module.conv1d.weight))

    split = [module.key_dim, 2 * module.key_dim]
    q, k, v = mx.split(conv[0], split, axis=-1)
    q, k = normalize_qk(q.reshape(rows, hk, dk), k.reshape(rows, hk, dk), inv_scale=dk**-0.5, eps=1e-6)
    v = v.reshape(rows, hv, dv)
    state = cache.state
    if state is None:
        state = mx.zeros((hk, hv // hk, dv, dk), mx.float32)
    pass_ = _Pass(module, q, k, v, projections.a[0], projections.b[0], state)
    outputs, record = pass_.by_kernel() if has_kernel(dk) else pass_.by_rule()
    cache.feed(conv_input, record)
    gated = module.norm(outputs.astype(projections.qkv.dtype), projections.z)
    out: mx.array = module.out_proj(gated.reshape(1, rows, -1))
    return out


def depthwise_conv(conv_input: mx.array, weight: mx.array) -> mx.array:
    """Causal depthwise convolution: ``[1, K - 1 + T, C]`` and ``[C, K, 1]`` to ``[1, T, C]``."""
    _, length, channels = conv_input.shape
    taps = weight.shape[1]
    windows = mx.as_strided(conv_input, (1, length - taps + 1, taps, channels), (0, channels, channels, 1))
    return (windows * weight[..., 0].T).sum(axis=2)


@dataclass(frozen=True)
class _Pass:
    """The inputs of one pass: q, k ``[T, Hk, Dk]`` normalised, v ``[T, Hv, Dv]``, a, b ``[T, Hv]``."""

    module: Any
    q: mx.array
    k: mx.array
    v: mx.array
    a: mx.array
    b: mx.array
    state: mx.array

    def by_rule(self) -> tuple[mx.array, OuterProductWrites]:
        """Outputs ``[1, T, Hv, Dv]`` and the record, by the closed form."""
        rows, hk, dk = self.k.shape
        hv, dv = self.v.shape[1:]
        q, k = (x.astype(mx.float32).transpose(1, 0, 2)[:, None] for x in (self.q, self.k))
        v = self.v.astype(mx.float32).transpose(1, 0, 2).reshape(hk, hv // hk, rows, dv)
        decay_rate = mx.exp(self.module.A_log.astype(mx.float32))
        log_decay = -decay_rate * nn.softplus((self.a + self.module.dt_bias).astype(mx.float32))
        beta = mx.sigmoid(self.b.astype(mx.float32))
        outputs, record = gated_delta_rule(
            q, k, v, log_decay.T.reshape(hk, hv // hk, rows), beta.T.reshape(hk, hv // hk, rows), self.state
        )
        return outputs.reshape(1, hv, rows, dv).transpose(0, 2, 1, 3), record

    def by_kernel(self) -> tuple[mx.array, KernelPass]:
        """The same by mlx-lm's Metal kernel; the writes only if a commit asks for them."""
        rows, hk, _ = self.k.shape
        hv, dv = self.v.shape[1:]
        g = compute_g(self.module.A_log, self.a, self.module.dt_bias)
        outputs, final = gated_delta_kernel(
            self.q[None],
            self.k[None],
            self.v[None],
            g[None],
            mx.sigmoid(self.b)[None],
            self.state.reshape(1, hv, dv, -1),
        )
        final = final.reshape(self.state.shape)
        return outputs, KernelPass(final, rows, lambda: self.by_rule()[1])
