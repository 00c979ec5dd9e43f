"""The contract of a target: the trunk that decides every token, over the layers this host holds."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from skulk_core.cache.base import CacheList, LayerCache
from skulk_core.errors import ShareError
from skulk_core.memory.division import Part
from skulk_core.models.dense_layout import laid_out, lay_out
from skulk_core.models.light import hand_over
from skulk_core.models.parallel import compute_in_order, parts_of, wave
from skulk_core.models.sharing import Adder, cut, sum_here
from skulk_core.types import Conventions, LayerRange


@dataclass(frozen=True)
class Activations:
    """``T`` consecutive rows between two layers.

    ``tokens`` ``[T]`` travel along because some layers need them in every stage; ``position`` is the first row's;
    ``h`` ``[T, H]`` (or ``[T, S, H]`` where a trunk carries several streams).
    """

    tokens: mx.array
    position: int
    h: mx.array

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def with_h(self, h: mx.array) -> "Activations":
        """The same rows after some layers."""
        return replace(self, h=h)

    def rows(self, start: int, end: int) -> "Activations":
        """Rows ``[start, end)``."""
        return Activations(self.tokens[start:end], self.position + start, self.h[start:end])


@dataclass(frozen=True)
class Hidden:
    """What a head may read of ``T`` trunk rows: before and after the final norm, both ``[T, …]``."""

    pre_norm: mx.array
    post_norm: mx.array

    def rows(self, start: int, end: int) -> "Hidden":
        """Rows ``[start, end)``."""
        return Hidden(self.pre_norm[start:end], self.post_norm[start:end])


class Target(abc.ABC):
    """A trunk, or a half-open range of its layers, built from an mlx-lm model.

    Subclasses say how their family makes caches, runs a layer and builds the one extra layer of a head.
    """

    def __init__(self, model: nn.Module, layer_range: LayerRange | None = None) -> None:
        self.model = model
        self.num_layers = len(self.all_layers)
        self.layer_range = layer_range or LayerRange(0, self.num_layers)
        assert self.layer_range.end <= self.num_layers, f"{self.layer_range} of {self.num_layers} layers"
        self.layers: Sequence[Any] = self.all_layers[self.layer_range.start : self.layer_range.end]
        self.adder = Adder()
        self._decides = True

    # what a family says of itself

    @property
    @abc.abstractmethod
    def text_model(self) -> Any:
        """The mlx-lm module with `args`, `model` (embedding, layers, norm) and, if untied, `lm_head`."""

    @abc.abstractmethod
    def make_layer_cache(self, layer: Any) -> LayerCache:
        """An empty cache of the kind that ``layer`` needs."""

    @abc.abstractmethod
    def run_layer(self, layer: Any, h: mx.array, cache: LayerCache, mask: Any) -> mx.array:
        """One layer over ``h`` ``[T, H]``; feeds ``cache``."""

    def run_layer_for_last(self, layer: Any, h: mx.array, cache: LayerCache) -> mx.array:
        """As `run_layer`, for a caller that wants the last row ``[1, H]`` alone; ``cache`` is fed every row."""
        return self.run_layer(layer, h, cache, cache.mask(h.shape[0]))[-1:]

    @abc.abstractmethod
    def make_head_layer(self) -> Any:
        """A new full-attention decoder layer of the trunk's kind, weights not loaded, for a head in its layout."""

    def begin_pass(self, entering: Activations) -> Any:
        """What the layers of one pass over ``entering`` have in common besides masks, for `run_nth_layer`.

        None for most families. A prompt in parts is a pass for each part. Nothing is remembered in the target.
        """
        return None

    def run_nth_layer(self, index: int, h: mx.array, cache: LayerCache, mask: Any, in_common: Any) -> mx.array:
        """`run_layer` of this host's layer ``index`` in the pass that gave ``in_common``."""
        return self.run_layer(self.layers[index], h, cache, mask)

    def run_nth_layer_for_last(self, index: int, h: mx.array, cache: LayerCache, mask: Any, in_common: Any) -> mx.array:
        """`run_layer_for_last` of this host's layer ``index`` in the pass that gave ``in_common``."""
        return self.run_layer_for_last(self.layers[index], h, cache)

    def outer_modules(self) -> list[Any]:
        """Modules besides the layers whose weights this host needs.

        The embedding where rows enter; norm and LM head where they leave, and the embedding, for that host drafts.
        """
        first, last = self.layer_range.start == 0, self.layer_range.end == self.num_layers
        modules = [self.text_model.model.embed_tokens] if first or last else []
        if last:
            modules.append(self.text_model.model.norm)
            if self.lm_head is not None:
                modules.append(self.lm_head)
        return modules

    def drop_parts_of_others(self) -> None:
        """Let go of parts of a weight that only other hosts' layers need, where the model is this target's alone."""
        return

    @property
    def overflows_in_float16(self) -> bool:
        """Whether activations of this family leave float16's range."""
        return False

    @property
    def released_conventions(self) -> Conventions | None:
        """How this family's heads are wired in upstream releases; None where no release of it has a head."""
        return None

    @property
    def divided(self) -> tuple[Part, ...]:
        """What tensor-parallel ranks divide in every layer; empty where nobody has said how it is done."""
        return ()

    def sum_layer(self, layer: Any) -> None:
        """Have ``layer``, of which mlx-lm has cut a share, add up by `adder`."""
        sum_here(layer, self.adder)

    @property
    def split_points(self) -> tuple[int, ...]:
        """Layer indices where a stage may begin."""
        return tuple(range(1, self.num_layers))

    # what all share

    @property
    def args(self) -> Any:
        """mlx-lm's model arguments of the text part."""
        return self.text_model.args

    @property
    def all_layers(self) -> Sequence[Any]:
        """Every layer of the trunk, those of other hosts included."""
        layers: Sequence[Any] = self.text_model.model.layers
        return layers

    @property
    def hidden_size(self) -> int:
        """``H``."""
        return int(self.args.hidden_size)

    @property
    def vocab_size(self) -> int:
        """``V``."""
        return int(self.args.vocab_size)

    @property
    def norm_eps(self) -> float:
        """Epsilon of the trunk's final norm."""
        return float(self.text_model.model.norm.eps)

    @property
    def lm_head(self) -> Any | None:
        """The trunk's own LM head, None where the embedding serves as one.

        Asked of the module: not every family's arguments say so, and some say so and have one.
        """
        return self.text_model.get("lm_head")

    @property
    def dtype(self) -> mx.Dtype:
        """Dtype of the activations."""
        norm: mx.array = self.text_model.model.norm.weight
        return norm.dtype

    def take_share(self, rank: int, size: int, *, decides: bool) -> None:
        """Keep the share of ``rank`` of every layer; only ranks that ``decides`` keep the LM head. Nothing is read.

        From here on every rank must run the same passes in the same order, and `adder` must know how shares are added
        up. Raises `ShareError`.
        """
        compute_in_order()
        self._decides = decides
        try:
            cut(self.model, rank, size)
        except ValueError as error:
            raise ShareError(
                self.model_type, f"this {self.model_type} model has no {size} equal shares: {error}"
            ) from error
        for layer in self.layers:
            self.sum_layer(layer)
        if not decides:
            self.text_model.pop("lm_head", None)

    def lay_out(self) -> None:
        """Store the weights of this host's layers and of its LM head as the device multiplies them fastest.

        They must have been read, and are not cut into shares afterwards.
        """
        lay_out(self.layers)
        text = self.text_model
        if self.layer_range.end < self.num_layers or not self._decides:
            # another host has the LM head; in a pipeline it was never read here
            return
        if self.lm_head is not None:
            text.lm_head = laid_out(text.lm_head)
        else:
            text.model.embed_tokens = laid_out(text.model.embed_tokens)
        mx.clear_cache()

    @property
    def model_type(self) -> str:
        """mlx-lm's name for the family."""
        # mlx-lm's module, whatever the checkpoint calls itself
        return type(self.model).__module__.rpartition(".")[2]

    def make_caches(self) -> CacheList:
        """Empty caches for this host's layers."""
        return CacheList([self.make_layer_cache(layer) for layer in self.layers])

    def embed_tokens(self, tokens: mx.array) -> mx.array:
        """Embeddings ``[T, H]`` of ``tokens`` ``[T]``."""
        embedded: mx.array = self.text_model.model.embed_tokens(tokens)
        return embedded

    def embed(self, tokens: mx.array, position: int) -> Activations:
        """Rows entering layer 0, the first of them at ``position``."""
        return Activations(tokens, position, self.embed_tokens(tokens))

    def run(self, activations: Activations, caches: CacheList) -> Activations:
        """Run this host's layers over ``activations``, before the final norm; every cache is fed the rows."""
        assert len(caches) == len(self.layers), f"{len(caches)} caches for {len(self.layers)} layers"
        width, in_common = len(activations), self.begin_pass(activations)
        masks: dict[object, Any] = {}
        h = activations.h
        for index, cache in enumerate(caches):
            if cache.mask_key not in masks:
                masks[cache.mask_key] = cache.mask(width)
            h = self.run_nth_layer(index, h, cache, masks[cache.mask_key], in_common)
            hand_over(h)
        return activations.with_h(h)

    def run_and_commit(self, activations: Activations, caches: CacheList, *, last_row: bool = False) -> Activations:
        """`run`, and every cache keeps every row: for a prompt, whose parts a CPU computes side by side.

        With ``last_row`` the last layer is run for the last row alone, where that is less work, and that row is all
        that is returned: nobody may want the others, neither a head nor another host.
        """
        parts = parts_of(len(activations))
        entering = [activations.rows(*part) for part in parts] if len(parts) > 1 else [activations]
        h, in_common = [part.h for part in entering], [self.begin_pass(part) for part in entering]
        masks: dict[object, Any] = {}

        def run(part: int, index: int) -> None:
            cache, rows = caches[index], h[part].shape[0]
            key = part, cache.mask_key
            if key not in masks:
                masks[key] = cache.mask(rows)
            last = last_row and index == len(self.layers) - 1
            run_layer = self.run_nth_layer_for_last if last else self.run_nth_layer
            h[part] = run_layer(index, h[part], cache, masks[key], in_common[part])
            cache.commit(rows)
            # what the layer remembers too: the next part waits for it
            hand_over(h[part], *cache.arrays())

        wave(len(parts), len(self.layers), run)
        if last_row:
            end = activations.position + len(activations) - 1
            return Activations(activations.tokens[-1:], end, h[-1][-1:])
        return activations.with_h(mx.concatenate(h) if len(h) > 1 else h[0])

    def norm(self, h: mx.array) -> mx.array:
        """The final norm over ``[T, H]``."""
        normed: mx.array = self.text_model.model.norm(h)
        return normed

    def hidden(self, activations: Activations) -> Hidden:
        """Both taps of the last layer's output."""
        return Hidden(activations.h, self.norm(activations.h))

    def logits(self, h: mx.array) -> mx.array:
        """Logits ``[T, V]`` of post-norm ``h`` ``[T, H]``."""
        head = self.text_model.model.embed_tokens.as_linear if self.lm_head is None else self.lm_head
        logits: mx.array = head(h)
        return logits
