"""Plain decoders: mlx-lm models that are an embedding, layers of `(h, mask, cache)`, a norm, and nothing else."""

import inspect
from typing import Any

import mlx.core as mx

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.window import WindowCache
from skulk_core.memory.division import Part
from skulk_core.models.base import Target
from skulk_core.models.sharing import mlp_parts


class PlainTarget(Target):
    """Llama, Mistral, Qwen2, Qwen3 and their kin; full attention or a sliding window per layer."""

    @property
    def text_model(self) -> Any:
        return self.model

    def make_layer_cache(self, layer: Any) -> LayerCache:
        if getattr(layer, "use_sliding", False):
            return WindowCache(self.args.sliding_window)
        return AttentionCache()

    def run_layer(self, layer: Any, h: mx.array, cache: LayerCache, mask: Any) -> mx.array:
        # squeezed, not indexed: an index is a gather
        out: mx.array = layer(h[None], mask, cache=cache).squeeze(0)
        return out

    @property
    def divided(self) -> tuple[Part, ...]:
        if not hasattr(self.model, "shard"):
            return ()
        attention = self.layers[0].self_attn
        return (
            Part("attention heads", attention.n_heads),
            Part("key and value heads", attention.n_kv_heads),
            Part("attention columns", attention.q_proj.weight.shape[0], is_packed=True),
            *mlp_parts(self.layers),
        )

    def make_head_layer(self) -> Any:
        last = type(self.all_layers[-1])
        # the index, where a family's layer takes one, decides dense or sparse: as the trunk's last
        takes_index = "layer_idx" in inspect.signature(last).parameters
        return last(self.args, layer_idx=self.num_layers - 1) if takes_index else last(self.args)
