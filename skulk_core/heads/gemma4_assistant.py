"""Gemma 4's assistants: a small model without keys and values of its own that reads the target's.

    x = pre_projection([embed(token) sqrt(B) ; h]);  x = layers(x);  logits = embedding(norm(x))

with the target's embedding and its hidden row ``h`` after the final norm, ``B`` wide both; the next draft's ``h`` is
``post_projection(norm(x))``. Every layer attends to what the target's last layer of its kind with K/V of its own keeps
of the committed rows. A whole chain has one position. As transformers' `Gemma4AssistantForCausalLM` and its
`SinglePositionMultiTokenCandidateGenerator`, which take the position of the token that was chosen last
(`last_committed`); other programs take that of the row it was chosen from (`before_last`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.gemma4_text import DecoderLayer

from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.base import CacheList
from skulk_core.cache.window import WindowCache
from skulk_core.errors import SidecarError
from skulk_core.formats.head_names import local_name
from skulk_core.heads.base import WiredHead
from skulk_core.heads.centroids import ClusteredLogits, MaskedEmbedding
from skulk_core.heads.files import HeadFiles
from skulk_core.heads.gemma4_spec import AssistantSpec, read_spec, require_fit
from skulk_core.heads.query_only import QueryOnlyLayer, Turns
from skulk_core.models.base import Hidden, Target
from skulk_core.models.gemma4 import Gemma4Target
from skulk_core.models.light import hand_over, linear, row_norm
from skulk_core.sampling.base import Draft, Place, Sampler
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

KeysValues = Mapping[str, tuple[mx.array, mx.array]]

# Rows whose logits are held at once, where those of a whole text are wanted: of a large vocabulary each is a megabyte.
_ROWS_OF_LOGITS = 16


class AssistantModule(nn.Module):
    """The weights, named as released without `model.`; the embedding serves as LM head only."""

    def __init__(self, spec: AssistantSpec) -> None:
        super().__init__()
        args, size = spec.args, spec.args.hidden_size
        self._spec = spec
        self.pre_projection = nn.Linear(2 * spec.backbone_hidden_size, size, bias=False)
        self.post_projection = nn.Linear(size, spec.backbone_hidden_size, bias=False)
        self.embed_tokens = nn.Embedding(args.vocab_size, size)
        self.layers = [DecoderLayer(args, index) for index in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(size, eps=args.rms_norm_eps)
        if spec.num_centroids:
            self.masked_embedding = MaskedEmbedding(size, args.vocab_size, spec.num_centroids)

    @property
    def spec(self) -> AssistantSpec:
        """Its sizes."""
        return self._spec


@dataclass(frozen=True)
class _Seen:
    """What the layers of a pass look at, by kind: keys and values, masks where not all may be seen, and RoPE."""

    keys_values: KeysValues
    masks: Mapping[str, mx.array]
    turns: Mapping[str, Callable[[mx.array], mx.array]]


class AssistantHead(WiredHead):
    """Drafts from the last committed pair and the target's caches; of the pairs before it nothing is remembered."""

    def __init__(self, module: AssistantModule, target: Gemma4Target, conventions: Conventions) -> None:
        self._target = target
        # the token chosen last stands behind the committed rows
        self._shift = 0 if conventions.position_rule is PositionRule.LAST_COMMITTED else -1
        self._layers = [QueryOnlyLayer(layer) for layer in module.layers]
        attentions = {layer.layer_type: layer.self_attn for layer in module.layers}
        self._turns = {kind: Turns(attention.rope, attention.head_dim) for kind, attention in attentions.items()}
        self._sliding_rows = module.spec.sliding_rows
        self._norm = row_norm(module.norm)
        self._enter, self._leave = linear(module.pre_projection), linear(module.post_projection)
        self._score = _logits_of(module, target.vocab_size)
        self._dtype = module.norm.weight.dtype
        self._caches: CacheList | None = None
        self.reset()

    def read_from(self, caches: CacheList) -> None:
        self._caches = caches

    def reset(self) -> None:
        self._last: tuple[mx.array, mx.array] | None = None  # hidden row [1, B] and token [1] of the last pair
        self._observed: tuple[mx.array, mx.array] | None = None  # rows [w, B] and tokens [w] waiting for their commit

    def tapped(self, hidden: Hidden) -> Hidden:
        return Hidden(hidden.post_norm, hidden.post_norm)

    def ingest(self, hidden: Hidden, next_tokens: mx.array) -> None:
        self._last = hidden.post_norm[-1:], next_tokens[-1:]

    def observe(self, hidden: Hidden, next_tokens: mx.array) -> None:
        self._observed = hidden.post_norm, next_tokens

    def commit(self, num_rows: int) -> None:
        assert self._observed is not None, "nothing observed"
        if num_rows:
            rows, tokens = self._observed
            self._last = rows[num_rows - 1 : num_rows], tokens[num_rows - 1 : num_rows]
        self._observed = None

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        assert self._last is not None, "nothing read yet"
        assert self._caches is not None, "no caches to read from"
        h, token = self._last
        position = self._caches.rows + self._shift
        keys_values = {kind: self._seen_of(cache) for kind, cache in self._target.drafting_caches(self._caches).items()}
        turns = {kind: kinds.at(1, position) for kind, kinds in self._turns.items()}
        tokens: list[mx.array] = []
        probs = []
        for step in range(depth):
            out = self._forward(h, token, _Seen(keys_values, {}, turns))
            token, distribution = sampler.draft(self._score(out), place, tokens)
            hand_over(token)
            tokens.append(token)
            probs.append(distribution)
            if step + 1 < depth:
                h = self._leave(out)
        known = [p for p in probs if p is not None]
        return Draft(mx.concatenate(tokens), mx.concatenate(known) if known else None)

    def forced(self, tokens: mx.array, hidden: Hidden, depth: int) -> list[mx.array]:
        keys_values, masks = self._of_text(tokens[:-1])
        h, drafts = hidden.post_norm, []
        for step in range(depth):
            rows = tokens.shape[0] - 1 - step
            turns = {kind: kinds.at(rows, 1 + self._shift) for kind, kinds in self._turns.items()}
            first_rows = {kind: mask[:rows] for kind, mask in masks.items()}
            seen = _Seen(keys_values, first_rows, turns)
            out = self._forward(h[:rows], tokens[1 + step :], seen)
            parts = (out[at : at + _ROWS_OF_LOGITS] for at in range(0, rows, _ROWS_OF_LOGITS))
            drafts.append(mx.concatenate([mx.argmax(self._score(part), axis=-1) for part in parts]))
            h = self._leave(out)
        return drafts

    def _seen_of(self, cache: AttentionCache | WindowCache) -> tuple[mx.array, mx.array]:
        """A layer's committed rows, as the next draft sees them: an assistant's window may be the narrower one."""
        keys, values = cache.keys_and_values()
        if isinstance(cache, WindowCache) and keys.shape[2] > self._sliding_rows:
            return keys[..., -self._sliding_rows :, :], values[..., -self._sliding_rows :, :]
        return keys, values

    def _of_text(self, tokens: mx.array) -> tuple[KeysValues, dict[str, mx.array]]:
        """The target's keys and values of a whole text, and which of them the draft after each row may see."""
        caches, length = self._target.make_caches(), tokens.shape[0]
        self._target.run(self._target.embed(tokens, 0), caches)
        # the rows of a first pass stand at the beginning of a cache's arrays, in all of their length
        keys_values, masks = {}, {}
        own, key = mx.arange(length)[:, None], mx.arange(length)[None]
        for kind, cache in self._target.drafting_caches(caches).items():
            keys, values = cache.arrays()
            keys_values[kind] = keys[..., :length, :], values[..., :length, :]
            masks[kind] = key <= own
            if isinstance(cache, WindowCache):
                masks[kind] = masks[kind] & (key > own - self._sliding_rows)
        return keys_values, masks

    def _forward(self, h: mx.array, tokens: mx.array, seen: "_Seen") -> mx.array:
        """Normed rows ``[T, h]`` for hidden rows ``[T, B]`` and the tokens ``[T]`` after them."""
        entering = mx.concatenate([self._target.embed_tokens(tokens), h], axis=-1)
        x = self._enter(entering if entering.dtype == self._dtype else entering.astype(self._dtype))
        for layer in self._layers:
            kind = layer.kind
            x = layer(x, seen.keys_values[kind], seen.masks.get(kind), seen.turns[kind])
        return self._norm(x)

    def arrays(self) -> list[mx.array]:
        return [] if self._last is None else list(self._last)


def _logits_of(module: AssistantModule, vocab_size: int) -> Callable[[mx.array], mx.array]:
    """Logits ``[T, vocab_size]`` of normed rows; tokens that only one of the two vocabularies has are never drafted."""
    score: Callable[[mx.array], mx.array]
    embedding = module.embed_tokens
    if module.spec.num_centroids:
        score = ClusteredLogits(module.masked_embedding, embedding, module.spec.centroids_looked_into)
    elif type(embedding) is nn.Embedding:
        score = Projection(embedding.weight)
    else:
        score = embedding.as_linear
    own = module.spec.args.vocab_size
    if own > vocab_size:
        return lambda x: score(x)[:, :vocab_size]
    if own < vocab_size:
        return lambda x: mx.pad(score(x), [(0, 0), (0, vocab_size - own)], constant_values=-mx.inf)
    return score


class Projection:
    """Products with one matrix ``[out, in]``, transposed once."""

    def __init__(self, weight: mx.array) -> None:
        self._transposed = weight.T
        mx.eval(self._transposed)

    def __call__(self, x: mx.array) -> mx.array:
        """``[T, out]`` of ``[T, in]``."""
        return x @ self._transposed


class AssistantLayout:
    """A checkpoint of its own: projections in and out, query-only layers, an embedding, perhaps with centroids."""

    name = "gemma4_assistant"
    prefix = ""
    choices: Mapping[str, Sequence[Any]] = {
        "norm_offset": (0.0,),
        "concat_order": (ConcatOrder.EMBEDDING_FIRST,),
        "hidden_tap": (HiddenTap.POST_NORM,),
        "chain_tap": (ChainTap.POST_NORM,),
        "position_rule": (PositionRule.LAST_COMMITTED, PositionRule.BEFORE_LAST),
    }
    # as in transformers
    released = Conventions(position_rule=PositionRule.LAST_COMMITTED)
    unquantised = ("masked_embedding.centroids",)
    float16 = False

    def normalise(self, tensors: Mapping[str, mx.array], files: HeadFiles) -> dict[str, mx.array]:
        out = {local_name(name): tensor for name, tensor in tensors.items()}
        if "lm_head.weight" in out:
            # tied in releases; what scores the tokens is all that is used of the two
            of_head = {name: out.pop(name) for name in list(out) if name.startswith("lm_head.")}
            out = {name: tensor for name, tensor in out.items() if not name.startswith("embed_tokens.")}
            out |= {name.replace("lm_head.", "embed_tokens."): tensor for name, tensor in of_head.items()}
        ordering = out.get("masked_embedding.token_ordering")
        if ordering is not None and "embed_tokens.weight" in out:
            num_tokens = out["embed_tokens.weight"].shape[0]
            whole = mx.issubdtype(ordering.dtype, mx.integer) and ordering.shape == (num_tokens,)
            if not whole or not mx.array_equal(mx.sort(ordering), mx.arange(num_tokens)).item():
                reason = f"masked_embedding.token_ordering is not an order of its {num_tokens} tokens"
                raise SidecarError(files.origin, reason, ["masked_embedding.token_ordering"])
            out |= {name: tensor[ordering] for name, tensor in out.items() if name.startswith("embed_tokens.")}
        return out

    def module(self, target: Target, files: HeadFiles) -> AssistantModule:
        spec = read_spec(files)
        require_fit(spec, target, files)
        try:
            return AssistantModule(spec)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # mlx-lm takes any configuration, and finds out when it makes a layer
            raise SidecarError(files.origin, f"config.json: {error}") from error

    def head(self, module: Any, target: Target, conventions: Conventions) -> AssistantHead:
        assert isinstance(target, Gemma4Target)
        return AssistantHead(module, target, conventions)


LAYOUT = AssistantLayout()
