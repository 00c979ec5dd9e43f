"""Gemma 4 of every size, and the text part of multimodal checkpoints: mlx-lm's `gemma4` and `gemma4_text`."""

import dataclasses
from typing import Any

import mlx.core as mx
from mlx_lm.models.gemma4_text import logit_softcap

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import CacheList, LayerCache
from skulk_core.cache.borrowed import BorrowedCache
from skulk_core.cache.window import WindowCache
from skulk_core.models.base import Activations, Target
from skulk_core.models.gemma4_inputs import LayerInputs
from skulk_core.models.gemma4_layer import Gemma4Layer, Pass, RotaryTable
from skulk_core.types import LayerRange

FULL, SLIDING = "full_attention", "sliding_attention"


class Gemma4Target(Target):
    """Sliding-window layers with full attention every few.

    In the small sizes the last layers attend to keys and values of layers before them, and every layer has an input
    of its own, made from the token.
    """

    def __init__(self, model: Any, layer_range: LayerRange | None = None) -> None:
        super().__init__(model, layer_range)
        own = self.num_layers - int(self.args.num_kv_shared_layers)
        # layer type -> the last layer of it with keys and values of its own: what later layers read, and assistants
        self._lenders = {kind: index for index, kind in enumerate(self.args.layer_types[:own])}
        self._first_borrower = own
        start, end = self.layer_range.start, self.layer_range.end
        if end > own:
            assert start <= min(self._lenders.values()), f"{self.layer_range} cuts layers from the K/V they read"
        trunk, has_inputs = self.text_model.model, bool(self.args.hidden_size_per_layer_input)
        self._layer_inputs = LayerInputs(trunk, self.layer_range, self.num_layers) if has_inputs else None
        # with its layer, or the id of one that is gone could be another's
        self._runners: dict[int, tuple[Any, Gemma4Layer]] = {}
        self._tables: dict[str, RotaryTable] = {}

    @property
    def text_model(self) -> Any:
        # multimodal checkpoints keep it under this name; a text part alone is one
        return self.model.get("language_model", self.model)

    @property
    def split_points(self) -> tuple[int, ...]:
        """Before the last layers of each type with K/V of their own: later layers read these, and so do assistants."""
        return tuple(range(1, min(self._lenders.values()) + 1))

    @property
    def lent_kinds(self) -> frozenset[str]:
        """The types of layers whose keys and values an assistant can read: those of `drafting_caches`."""
        return frozenset(self._lenders)

    @property
    def overflows_in_float16(self) -> bool:
        return True

    def make_caches(self) -> CacheList:
        caches: dict[int, LayerCache] = {}
        for index in range(self.layer_range.start, self.layer_range.end):
            if index < self._first_borrower:
                caches[index] = self._own_cache(index)
            else:
                caches[index] = BorrowedCache(caches[self._lenders[self.args.layer_types[index]]])
        return CacheList(list(caches.values()))

    def make_layer_cache(self, layer: Any) -> LayerCache:
        return WindowCache(self.args.sliding_window) if layer.layer_type == SLIDING else AttentionCache()

    def _own_cache(self, index: int) -> LayerCache:
        window = self.args.sliding_window
        if self.args.layer_types[index] == SLIDING:
            # assistants look a little further back than the layer itself: `drafting_caches`
            return WindowCache(window, window + 1 if index == self._lenders[SLIDING] else None)
        return AttentionCache()

    def drafting_caches(self, caches: CacheList) -> dict[str, AttentionCache | WindowCache]:
        """Layer type → the cache whose `keys_and_values` an assistant's layers of that type attend to.

        Of ``caches``, this host's, which must be the last: those of the last layer of each type with keys and values
        of its own. They are after norm and RoPE, of committed rows only: all of them of full attention, of a sliding
        layer the last ``sliding_window + 1``, which is what transformers' `Gemma4AssistantForCausalLM` lets a query
        see (its mask keeps distances up to the window from the last row on). The trunk's own next query sees
        ``sliding_window - 1`` of them.
        """
        start = self.layer_range.start
        assert self.layer_range.end == self.num_layers, "drafting is the last host's"
        found: dict[str, AttentionCache | WindowCache] = {}
        for kind, index in self._lenders.items():
            cache = caches[index - start]
            assert isinstance(cache, AttentionCache | WindowCache)
            found[kind] = cache
        return found

    def embed_tokens(self, tokens: mx.array) -> mx.array:
        """Embeddings ``[T, H]`` of ``tokens`` ``[T]`` times the root of H, as the trunk and assistants take them."""
        embedded: mx.array = self.text_model.model.embed_tokens(tokens) * self.text_model.model.embed_scale
        return embedded

    def begin_pass(self, entering: Activations) -> Pass:
        if self._layer_inputs is None:
            return Pass()
        first = self.layer_range.start == 0
        embedded = entering.h if first else self.embed_tokens(entering.tokens)
        return Pass(self._layer_inputs(embedded, entering.tokens))

    def run_nth_layer(self, index: int, h: mx.array, cache: LayerCache, mask: Any, in_common: Pass) -> mx.array:
        own_input = None if in_common.inputs is None else in_common.inputs[index]
        return self._runner(self.layers[index])(h, mask, cache, in_common, own_input)

    def run_nth_layer_for_last(
        self, index: int, h: mx.array, cache: LayerCache, mask: Any, in_common: Pass
    ) -> mx.array:
        return self.run_nth_layer(index, h, cache, mask, in_common)[-1:]

    def run_layer(self, layer: Any, h: mx.array, cache: LayerCache, mask: Any) -> mx.array:
        assert not layer.hidden_size_per_layer_input, "such a layer runs in a pass: `run_nth_layer`"
        return self._runner(layer)(h, mask, cache, Pass(), None)

    def _runner(self, layer: Any) -> Gemma4Layer:
        if id(layer) not in self._runners:
            # not before the first pass: by then the weights have their final dtype
            kind = layer.layer_type
            if kind not in self._tables:
                self._tables[kind] = RotaryTable(layer.self_attn.rope)
            lends = self._first_borrower < self.num_layers and layer is self.all_layers[self._lenders[kind]]
            self._runners[id(layer)] = layer, Gemma4Layer(layer, self._tables[kind], lends=lends)
        return self._runners[id(layer)][1]

    def make_head_layer(self) -> Any:
        # no release has such a head; one trained for it can have no layer input and no layer to read from
        args = dataclasses.replace(self.args, hidden_size_per_layer_input=0, num_kv_shared_layers=0)
        return type(self.all_layers[0])(args, self._lenders[FULL])

    def outer_modules(self) -> list[Any]:
        modules = super().outer_modules()
        if self._layer_inputs is None:
            return modules
        # every stage makes the inputs of its layers from the tokens
        middle = [] if modules else [self.text_model.model.embed_tokens]
        return modules + middle + self._layer_inputs.modules()

    def drop_parts_of_others(self) -> None:
        if self._layer_inputs is not None and len(self.layer_range) < self.num_layers:
            self._layer_inputs.narrow()

    def logits(self, h: mx.array) -> mx.array:
        logits, cap = super().logits(h), self.text_model.final_logit_softcapping
        return logits if cap is None else logit_softcap(cap, logits)
