"""What Qwen3-Next and Qwen3.5 share: gated delta nets among full-attention layers."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import LayerCache
from skulk_core.cache.recurrent import RecurrentCache
from skulk_core.memory.division import Part
from skulk_core.models.attention import attend, heads_first, rows_first
from skulk_core.models.base import Target
from skulk_core.models.dense_layout import in_heads, tiles_to_join
from skulk_core.models.gdn_layer import GatedDeltaLayer, Projections, SecondHalf
from skulk_core.models.light import Rotary, RowNorm, begin, is_few, linear, row_norm
from skulk_core.models.sharing import Summed, mlp_parts
from skulk_core.numerics.elementwise import sigmoid
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, LayerRange


class _Heads(NamedTuple):
    """What attention is made of: ``normed`` queries and then keys, values, and the output gate, each ``[1, n, T, D]``.

    ``normed`` are queries or keys alone, and what belongs to the others is empty, where only those were asked for.
    """

    normed: mx.array
    values: mx.array
    gate: mx.array


class _Projections:
    """The heads of rows ``[T, H]``. Queries are projected with their gates, keys beside their values.

    Small weights that are stored in tiles are joined, each head beside its other half: one product, whose halves are
    views. The modules keep views of their parts.
    """

    def __init__(self, module: Any) -> None:
        self._num_heads, self._num_kv, self._dims = (
            module.num_attention_heads,
            module.num_key_value_heads,
            module.head_dim,
        )
        self._tiles = self._joined(module)
        self._q, self._k, self._v = linear(module.q_proj), linear(module.k_proj), linear(module.v_proj)
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

    def _joined(self, module: Any) -> mx.array | None:
        projections = module.q_proj, module.k_proj, module.v_proj
        found = tiles_to_join(projections)
        if found is None or self._dims % found[0].shape[-1]:
            return None
        queries, *pairs = found
        keys, values = (tiles.reshape(self._num_kv, -1, *tiles.shape[1:]) for tiles in pairs)
        joined = mx.concatenate([queries, mx.concatenate([keys, values], axis=1).reshape(-1, *queries.shape[1:])])
        ends = joined[queries.shape[0] :].reshape(self._num_kv, 2, -1, *queries.shape[1:])
        module.q_proj.tiles = joined[: queries.shape[0]]
        module.k_proj.tiles, module.v_proj.tiles = (ends[:, half].reshape(*pairs[half].shape) for half in (0, 1))
        mx.eval(joined, *(projection.tiles for projection in projections))
        self._num_query_tiles = queries.shape[0]
        return joined

    def __call__(self, x: mx.array) -> _Heads:
        """Everything of ``x``."""
        if self._tiles is not None:
            first, second = self._halves(x @ self._tiles)
            gate, values = mx.split(second, [self._num_heads], axis=1)
            return _Heads(self._norm(first), values, gate)
        queries, gate = self._queries(x)
        keys, values = self._in_rows(self._k(x)), self._in_rows(self._v(x))
        normed = self._norm(mx.concatenate([queries, keys], axis=1))
        return _Heads(heads_first(normed), heads_first(values), heads_first(gate))

    def queries(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Normed queries and gates alone."""
        if self._tiles is not None:
            queries, gate = self._halves(x @ self._tiles[: self._num_query_tiles])
            return self._query_norm(queries), gate
        queries, gate = self._queries(x)
        return heads_first(self._query_norm(queries)), heads_first(gate)

    def keys(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Normed keys and values alone."""
        if self._tiles is not None:
            keys, values = self._halves(x @ self._tiles[self._num_query_tiles :])
            return self._key_norm(keys), values
        return heads_first(self._key_norm(self._in_rows(self._k(x)))), heads_first(self._in_rows(self._v(x)))

    def _queries(self, x: mx.array) -> tuple[mx.array, mx.array]:
        queries, gate = mx.split(self._q(x).reshape(x.shape[0], self._num_heads, -1), 2, axis=-1)
        return queries, gate

    def _in_rows(self, x: mx.array) -> mx.array:
        return x.reshape(x.shape[0], self._num_kv, -1)

    def _halves(self, out: mx.array) -> tuple[mx.array, mx.array]:
        """First and second half ``[1, n, T, D]`` of every pair in a product ``[tiles, T, columns]``."""
        heads = in_heads(out, self._dims)
        pairs = heads.reshape(1, -1, 2, *heads.shape[1:])
        first, second = mx.split(pairs, 2, axis=2)
        return first.squeeze(2), second.squeeze(2)


class GatedAttention:
    """Runs one layer of mlx-lm (Qwen3-Next or Qwen3.5) whose mixer is gated full attention.

    Its weights are mlx-lm's. Follows `Qwen3NextAttention.__call__`; queries and keys are normed and rotated together.
    """

    def __init__(self, layer: Any) -> None:
        module = layer.self_attn
        self._num_heads, self._num_kv = module.num_attention_heads, module.num_key_value_heads
        self._project = _Projections(module)
        self._input_norm = row_norm(layer.input_layernorm)
        self._o, self._rope = linear(module.o_proj), Rotary(module.rope)
        self._second_half = SecondHalf(layer)

    def __call__(self, h: mx.array, mask: Any, cache: AttentionCache) -> mx.array:
        """Rows ``[T, H]`` after the layer; feeds ``cache``."""
        heads, values, gate = self._project(self._input_norm(h))
        begin(h.shape[0], heads, values, gate)
        queries, keys = mx.split(self._rope(heads, cache.offset), [self._num_heads], axis=1)
        keys, values = cache.update_and_fetch(keys, values)
        return self._finished(h, attend(queries, keys, values, mask, self._project.scale), gate)

    def last_row(self, h: mx.array, cache: AttentionCache) -> mx.array:
        """The last row ``[1, H]`` after the layer; of the others only keys and values are worked out."""
        rows = h.shape[0]
        if rows == 1:
            return self(h, None, cache)
        x = self._input_norm(h)
        keys, values = self._project.keys(x)
        queries, gate = self._project.queries(x[-1:])
        offset = cache.offset
        # as `__call__` would, so that keys are the same whether or not anybody wants the other rows
        by_tables = is_few(rows * (self._num_heads + self._num_kv) * keys.shape[-1])
        queries = self._rope(queries, offset + rows - 1, by_tables)
        keys, values = cache.update_and_fetch(self._rope(keys, offset, by_tables), values)
        return self._finished(h[-1:], attend(queries, keys, values, None, self._project.scale), gate)

    def _finished(self, h: mx.array, out: mx.array, gate: mx.array) -> mx.array:
        return self._second_half(h + self._o(rows_first(out * sigmoid(gate))))


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
