"""What Qwen3-Next and Qwen3.5 share: gated delta nets among full-attention layers."""

import abc
from typing import Any

import mlx.core as mx

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.recurrent import RecurrentCache
from skulk_core.models.attention import attend
from skulk_core.models.base import Target
from skulk_core.models.elementwise import sigmoid
from skulk_core.models.gdn_layer import GatedDeltaLayer, Projections, after_mixing
from skulk_core.models.parallel import by_rows
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, LayerRange


def run_attention(layer: Any, h: mx.array, mask: Any, cache: AttentionCache) -> mx.array:
    """Rows ``[1, T, H]`` after a gated attention layer, as `Qwen3NextAttention.__call__` of mlx-lm; feeds ``cache``."""
    module, rows = layer.self_attn, h.shape[1]

    def project(h: mx.array) -> tuple[mx.array, ...]:
        x = layer.input_layernorm(h)
        return module.q_proj(x), module.k_proj(x), module.v_proj(x)

    def finish(h: mx.array, out: mx.array, gate: mx.array) -> tuple[mx.array]:
        return (after_mixing(layer, h + module.o_proj(out * sigmoid(gate))),)

    num_heads, num_kv = module.num_attention_heads, module.num_key_value_heads
    both, keys, values = by_rows(project, h)
    queries, gate = mx.split(both.reshape(1, rows, num_heads, -1), 2, axis=-1)
    queries = module.rope(module.q_norm(queries).swapaxes(1, 2), offset=cache.offset)
    keys = module.rope(module.k_norm(keys.reshape(1, rows, num_kv, -1)).swapaxes(1, 2), offset=cache.offset)
    keys, values = cache.update_and_fetch(keys, values.reshape(1, rows, num_kv, -1).swapaxes(1, 2))
    out = attend(queries, keys, values, module.scale, mask).swapaxes(1, 2).reshape(1, rows, -1)
    return by_rows(finish, h, out, gate.reshape(1, rows, -1))[0]


class HybridTarget(Target):
    """A trunk whose layers are gated delta nets (``is_linear``) or gated full attention."""

    def __init__(self, model: Any, layer_range: LayerRange | None = None) -> None:
        super().__init__(model, layer_range)
        self._gated_delta: dict[int, GatedDeltaLayer] = {}

    @abc.abstractmethod
    def project(self, module: Any, x: mx.array) -> Projections:
        """Input projections of a GDN ``module`` over ``[1, T, H]``."""

    @property
    def released_conventions(self) -> Conventions:
        # as in transformers' and vLLM's Qwen code
        return Conventions(
            norm_offset=1.0,
            concat_order=ConcatOrder.EMBEDDING_FIRST,
            hidden_tap=HiddenTap.POST_NORM,
            chain_tap=ChainTap.POST_NORM,
        )

    def make_layer_cache(self, layer: Any) -> LayerCache:
        return RecurrentCache() if layer.is_linear else AttentionCache()

    def run_layer(self, layer: Any, h: mx.array, cache: LayerCache, mask: Any) -> mx.array:
        if isinstance(cache, AttentionCache):
            return run_attention(layer, h, mask, cache)
        assert isinstance(cache, RecurrentCache)
        gated_delta = self._gated_delta.get(id(layer))
        if gated_delta is None:
            # not before the first pass: by then the weights have their final dtype
            gated_delta = self._gated_delta[id(layer)] = GatedDeltaLayer(layer, self.project)
        return gated_delta(h, cache)

    def make_head_layer(self) -> Any:
        # the layer index decides the kind: the last of an interval is full attention
        return type(self.all_layers[0])(self.args, self.args.full_attention_interval - 1)
