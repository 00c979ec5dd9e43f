"""What Qwen3-Next and Qwen3.5 share: gated delta nets among full-attention layers."""

import abc
from typing import Any

import mlx.core as mx
from mlx_lm.models.qwen3_next import Qwen3NextMLP

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.recurrent import RecurrentCache
from skulk_core.models.base import Target
from skulk_core.models.elementwise import silu
from skulk_core.models.gdn_layer import GatedDeltaLayer, Projections
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, LayerRange


def run_mlp(mlp: Any, x: mx.array) -> mx.array:
    """A dense or sparse MLP of the family over ``[1, T, H]``."""
    dense = isinstance(mlp, Qwen3NextMLP)
    out: mx.array = mlp.down_proj(silu(mlp.gate_proj(x)) * mlp.up_proj(x)) if dense else mlp(x)
    return out


class HybridTarget(Target):
    """A trunk whose layers are gated delta nets (``is_linear``) or gated full attention."""

    def __init__(self, model: Any, layer_range: LayerRange | None = None) -> None:
        super().__init__(model, layer_range)
        self._gated_delta: dict[int, GatedDeltaLayer] = {}

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
            h = h + layer.self_attn(layer.input_layernorm(h), mask, cache)
            return h + run_mlp(layer.mlp, layer.post_attention_layernorm(h))
        gated_delta = self._gated_delta.get(id(layer))
        if gated_delta is None:
            # not before the first pass: by then the weights have their final dtype
            gated_delta = self._gated_delta[id(layer)] = GatedDeltaLayer(layer.linear_attn)
        h = h + gated_delta(self.project(layer.linear_attn, layer.input_layernorm(h)), cache)
        return h + run_mlp(layer.mlp, layer.post_attention_layernorm(h))

    def make_head_layer(self) -> Any:
        # the layer index decides the kind: the last of an interval is full attention
        return type(self.all_layers[0])(self.args, self.args.full_attention_interval - 1)
