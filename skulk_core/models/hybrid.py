"""What Qwen3-Next and Qwen3.5 share: gated delta nets among full-attention layers."""

import abc
from typing import Any

import mlx.core as mx

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.recurrent import RecurrentCache
from skulk_core.models.base import Target
from skulk_core.models.gdn_layer import Projections, run_gated_delta
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap


class HybridTarget(Target):
    """A trunk whose layers are gated delta nets (``is_linear``) or gated full attention."""

    @abc.abstractmethod
    def project(self, module: Any, x: mx.array) -> Projections:
        """The input projections of a GDN ``module`` over ``[1, T, H]``."""

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
        if not isinstance(cache, RecurrentCache):
            out: mx.array = layer(h, mask, cache)
            return out
        projections = self.project(layer.linear_attn, layer.input_layernorm(h))
        h = h + run_gated_delta(layer.linear_attn, projections, cache)
        return h + layer.mlp(layer.post_attention_layernorm(h))

    def make_head_layer(self) -> Any:
        # the layer index decides the kind: the last of an interval is full attention
        return type(self.all_layers[0])(self.args, self.args.full_attention_interval - 1)
