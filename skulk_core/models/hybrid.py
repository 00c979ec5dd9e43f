"""What Qwen3-Next and Qwen3.5 share: gated delta nets among full-attention layers."""

import abc
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.recurrent import RecurrentCache
from skulk_core.memory.division import Part
from skulk_core.models.attention import attend, heads_first
from skulk_core.models.base import Target
from skulk_core.models.dense_layout import in_heads, in_rows, join, whole_tiles
from skulk_core.models.gdn_layer import GatedDeltaLayer, Projections, SecondHalf
from skulk_core.models.light import Rotary, RowNorm, begin, is_few, linear, row_norm
from skulk_core.models.sharing import Summed, mlp_parts
from skulk_core.numerics.elementwise import sigmoid
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, LayerRange


class _AttentionHeads:
    """Queries, keys, values and output gate of rows ``[T, H]``; queries and keys normed.

    Queries and gates alternate in what the query projection gives, as the family has them. Small weights that are
    stored in tiles are one product, and its heads are views of it.
    """

    def __init__(self, module: Any) -> None:
        self._num_heads, self._num_kv = module.num_attention_heads, module.num_key_value_heads
        self.dims, projections = module.head_dim, (module.q_proj, module.k_proj, module.v_proj)
        self._tiles = join(projections) if whole_tiles(module.q_proj, self.dims) else None
        self._num_query_tiles = 0 if self._tiles is None else module.q_proj.tiles.shape[0]
        self._q, self._k, self._v = (linear(projection) for projection in projections)
        # the scores' scale is folded into the queries' norm where that rounds nothing
        exact = module.q_norm.weight.dtype == mx.float32
        self.scale = 1.0 if exact else float(module.scale)
        # a weight for each head, also where one kind is alone, or rounding would differ from that of the norm of both
        queries = [module.q_norm.weight * module.scale if exact else module.q_norm.weight] * self._num_heads
        keys = [module.k_norm.weight] * self._num_kv
        axis = 0 if self._tiles is None else 1
        self._norm, self._query_norm, self._key_norm = (
            RowNorm(mx.expand_dims(mx.stack(weights), axis), module.q_norm.eps)
            for weights in (queries + keys, queries, keys)
        )

    def all(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries and then keys ``[1, Hq + Hkv, T, D]``, values ``[1, Hkv, T, D]`` and gate ``[1, Hq, T, D]``."""
        if self._tiles is None:
            queries, gate = self._query_rows(x)
            normed = heads_first(self._norm(mx.concatenate([queries, self._key_rows(self._k, x)], axis=1)))
            return normed, heads_first(self._key_rows(self._v, x)), heads_first(gate)
        num_queries = 2 * self._num_heads
        heads = in_heads(x @ self._tiles, self.dims)[None]
        queries, keys, values = mx.split(heads, [num_queries, num_queries + self._num_kv], axis=1)
        return self._norm(mx.concatenate([queries[:, ::2], keys], axis=1)), values, queries[:, 1::2]

    def queries(self, x: mx.array, small: bool) -> tuple[mx.array, mx.array]:
        """Queries and gate alone; ``small`` as `RowNorm`'s."""
        if self._tiles is None:
            queries, gate = self._query_rows(x)
            return heads_first(self._query_norm(queries, small)), heads_first(gate)
        heads = in_heads(x @ self._tiles[: self._num_query_tiles], self.dims)[None]
        return self._query_norm(heads[:, ::2], small), heads[:, 1::2]

    def keys(self, x: mx.array, small: bool) -> tuple[mx.array, mx.array]:
        """Keys and values alone."""
        if self._tiles is None:
            keys, values = self._key_rows(self._k, x), self._key_rows(self._v, x)
            return heads_first(self._key_norm(keys, small)), heads_first(values)
        heads = in_heads(x @ self._tiles[self._num_query_tiles :], self.dims)[None]
        keys, values = mx.split(heads, 2, axis=1)
        return self._key_norm(keys, small), values

    def _query_rows(self, x: mx.array) -> tuple[mx.array, mx.array]:
        queries, gate = mx.split(self._q(x).reshape(x.shape[0], self._num_heads, -1), 2, axis=-1)
        return queries, gate

    def _key_rows(self, project: Callable[[mx.array], mx.array], x: mx.array) -> mx.array:
        return project(x).reshape(x.shape[0], self._num_kv, -1)


class GatedAttention:
    """Runs one layer of mlx-lm (Qwen3-Next or Qwen3.5) whose mixer is gated full attention.

    Its weights are mlx-lm's. Follows `Qwen3NextAttention.__call__`; queries and keys are normed and rotated together.
    """

    def __init__(self, layer: Any) -> None:
        module = layer.self_attn
        self._num_heads, self._num_kv = module.num_attention_heads, module.num_key_value_heads
        self._heads = _AttentionHeads(module)
        self._input_norm = row_norm(layer.input_layernorm)
        self._o, self._rope = linear(module.o_proj), Rotary(module.rope)
        self._second_half = SecondHalf(layer)

    def __call__(self, h: mx.array, mask: Any, cache: AttentionCache) -> mx.array:
        """Rows ``[T, H]`` after the layer; feeds ``cache``."""
        heads, values, gate = self._heads.all(self._input_norm(h))
        begin(h.shape[0], heads, values, gate)
        queries, keys = mx.split(self._rope(heads, cache.offset), [self._num_heads], axis=1)
        keys, values = cache.update_and_fetch(keys, values)
        return self._finished(h, attend(queries, keys, values, mask, self._heads.scale), gate)

    def last_row(self, h: mx.array, cache: AttentionCache) -> mx.array:
        """The last row ``[1, H]`` after the layer; of the others only keys and values are worked out."""
        rows = h.shape[0]
        if rows == 1:
            return self(h, None, cache)
        x, offset = self._input_norm(h), cache.offset
        # as `__call__` would, so that keys are the same whether or not anybody wants the other rows
        small = is_few(rows * (self._num_heads + self._num_kv) * self._heads.dims)
        keys, values = self._heads.keys(x, small)
        queries, gate = self._heads.queries(x[-1:], small)
        queries = self._rope(queries, offset + rows - 1, small)
        keys, values = cache.update_and_fetch(self._rope(keys, offset, small), values)
        return self._finished(h[-1:], attend(queries, keys, values, None, self._heads.scale), gate)

    def _finished(self, h: mx.array, out: mx.array, gate: mx.array) -> mx.array:
        return self._second_half(h + self._o(in_rows(out * sigmoid(gate))))


class HybridTarget(Target):
    """A trunk whose layers are gated delta nets (``is_linear``) or gated full attention."""

    def __init__(self, model: Any, layer_range: LayerRange | None = None) -> None:
        super().__init__(model, layer_range)
        # with its layer, or the id of one that is gone could be another's
        self._runners: dict[int, tuple[Any, GatedDeltaLayer | GatedAttention]] = {}

    @abc.abstractmethod
    def projection(self, module: Any) -> Callable[[mx.array], Projections]:
        """Input projections of a GDN ``module`` as a function of rows ``[T, H]``."""

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
        runner = self._runner(layer)
        if isinstance(runner, GatedDeltaLayer):
            assert isinstance(cache, RecurrentCache)
            return runner(h, cache)
        assert isinstance(cache, AttentionCache)
        return runner(h, mask, cache)

    def run_layer_for_last(self, layer: Any, h: mx.array, cache: LayerCache) -> mx.array:
        runner = self._runner(layer)
        if isinstance(runner, GatedAttention) and isinstance(cache, AttentionCache):
            return runner.last_row(h, cache)
        return super().run_layer_for_last(layer, h, cache)

    def _runner(self, layer: Any) -> GatedDeltaLayer | GatedAttention:
        if id(layer) not in self._runners:
            # not before the first pass: by then the weights have their final dtype
            self._runners[id(layer)] = layer, self._make_runner(layer)
        return self._runners[id(layer)][1]

    def _make_runner(self, layer: Any) -> GatedDeltaLayer | GatedAttention:
        if layer.is_linear:
            return GatedDeltaLayer(layer, self.projection(layer.linear_attn))
        return GatedAttention(layer)

    @property
    def divided(self) -> tuple[Part, ...]:
        if not hasattr(self.model, "shard"):
            return ()
        return (*self._divided_in_mixers(), *mlp_parts(self.layers))

    def _divided_in_mixers(self) -> tuple[Part, ...]:
        found: dict[str, Part] = {}
        for layer in self.layers:
            if layer.is_linear:
                mixer = layer.linear_attn
                parts = (
                    Part("key heads of a gated delta net", mixer.num_k_heads),
                    Part("value heads of a gated delta net", mixer.num_v_heads),
                    Part("columns of a gated delta net", mixer.value_dim, is_packed=True),
                )
            else:
                mixer = layer.self_attn
                parts = (
                    Part("attention heads", mixer.num_attention_heads),
                    Part("key and value heads", mixer.num_key_value_heads, may_repeat=True),
                    Part("attention columns", mixer.num_attention_heads * mixer.head_dim, is_packed=True),
                )
            found.update((part.name, part) for part in parts)
        return tuple(found.values())

    def sum_layer(self, layer: Any) -> None:
        super().sum_layer(layer)
        self._runners.pop(id(layer), None)
        if layer.is_linear:
            # mlx-lm adds up after its own mixer, whose parts are run one by one here
            mixer = layer.linear_attn
            mixer.sharding_group, mixer.out_proj = None, Summed(mixer.out_proj, self.adder)

    def make_head_layer(self) -> Any:
        # the layer index decides the kind: the last of an interval is full attention
        return type(self.all_layers[0])(self.args, self.args.full_attention_interval - 1)
