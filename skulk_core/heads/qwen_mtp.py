"""The head of Qwen3-Next, Qwen3.5 and later, in its released tensor names; also on other trunks.

    z = fc([norm_e(e) ; norm_h(h)]);  out = layer(z);  logits = trunk_head(norm(out))

with ``e`` the embedding of the next token and ``h`` the trunk's hidden row (order, tap and chain by `Conventions`;
as in transformers' and vLLM's Qwen3-Next code). ``layer`` is one full-attention decoder layer of the trunk's kind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from skulk_core.cache.attention import AttentionCache
from skulk_core.formats.head_names import local_name
from skulk_core.heads.base import WiredHead
from skulk_core.heads.files import HeadFiles
from skulk_core.heads.forced import ForcedCache
from skulk_core.heads.weights import stack_experts
from skulk_core.models.base import Hidden, Target
from skulk_core.models.dense_layout import TiledLinear, laid_out
from skulk_core.models.light import begin, hand_over, linear, row_norm
from skulk_core.models.parallel import parts_of, wave
from skulk_core.sampling.base import Draft, Place, Sampler
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap, PositionRule

# Rows whose logits are held at once, where those of a whole text are wanted: of a large vocabulary each is a megabyte.
_ROWS_OF_LOGITS = 64
# Elements of a vocabulary's projected embeddings that are worked out beforehand: 16 MiB.
_LARGEST_TABLE = 1 << 22


class QwenMtpModule(nn.Module):
    """The head's weights, named as released without their ``mtp.`` prefix."""

    def __init__(self, hidden_size: int, norm_eps: float, layer: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.pre_fc_norm_embedding = nn.RMSNorm(hidden_size, eps=norm_eps)
        self.pre_fc_norm_hidden = nn.RMSNorm(hidden_size, eps=norm_eps)
        self.layers = [layer]
        self.norm = nn.RMSNorm(hidden_size, eps=norm_eps)


class _Entering:
    """What the layer reads: both halves normed, put together and projected.

    The projection is a sum over both halves. Where the model is so small that the number of operations is the cost of
    a draft, the embeddings' part of it is worked out beforehand, for the whole vocabulary.
    """

    def __init__(self, module: Any, target: Target, conventions: Conventions) -> None:
        self._fc, self._target = module.fc, target
        self._hidden_first = conventions.concat_order is ConcatOrder.HIDDEN_FIRST
        self._embedding_norm = row_norm(module.pre_fc_norm_embedding)
        self._hidden_norm = row_norm(module.pre_fc_norm_hidden)
        self._project: Callable[[mx.array, mx.array], mx.array] | None = None
        self.is_tabulated = False

    def __call__(self, h: mx.array, tokens: mx.array) -> mx.array:
        """``[T, H]`` for hidden rows ``[T, H]`` and the tokens ``[T]`` after them."""
        if self._project is None:
            # not before the head is used: the table is as large as the embedding
            self._project = self._with_table() or self._with_both()
        entering = self._project(h, tokens)
        begin(tokens.shape[0], entering)
        return entering

    def _with_both(self) -> Callable[[mx.array, mx.array], mx.array]:
        fc = linear(self._fc)

        def project(h: mx.array, tokens: mx.array) -> mx.array:
            halves = [self._embedding_norm(self._target.embed_tokens(tokens)), self._hidden_norm(h)]
            if self._hidden_first:
                halves.reverse()
            return fc(mx.concatenate(halves, axis=-1))

        return project

    def _with_table(self) -> Callable[[mx.array, mx.array], mx.array] | None:
        """None for a large vocabulary, another device, and what is quantised or not float32."""
        target, fc, size = self._target, self._fc, self._target.hidden_size
        is_dense = type(fc) in (nn.Linear, TiledLinear) and "bias" not in fc
        if mx.default_device() != mx.cpu or not is_dense or target.vocab_size * size > _LARGEST_TABLE:
            return None
        if not fc.weight.dtype == target.dtype == mx.float32:
            return None
        first, second = mx.split(fc.weight, 2, axis=-1)
        of_hidden, of_embedding = (first, second) if self._hidden_first else (second, first)
        table = self._embedding_norm(target.embed_tokens(mx.arange(target.vocab_size))) @ of_embedding.T
        part = nn.Linear(size, size, bias=False)
        part.weight = mx.contiguous(of_hidden)
        mx.async_eval(table, part.weight)
        of_hidden_rows, self.is_tabulated = linear(laid_out(part)), True
        return lambda h, tokens: table[tokens] + of_hidden_rows(self._hidden_norm(h))


@dataclass(frozen=True)
class _Begun:
    """The beginning of a draft: an output of the layer ``[1, H]``, the same normed, and its logits ``[1, V]``."""

    out: mx.array
    normed: mx.array
    logits: mx.array


class QwenMtpHead(WiredHead):
    """Drafts by chaining one layer with its own K/V of every committed pair."""

    def __init__(self, module: QwenMtpModule, target: Target, conventions: Conventions) -> None:
        self._module, self._target, self._conventions = module, target, conventions
        self._norm, self._entering = row_norm(module.norm), _Entering(module, target, conventions)
        self.reset()

    def reset(self) -> None:
        self._cache = self._target.make_layer_cache(self._module.layers[0])
        assert isinstance(self._cache, AttentionCache), "a head's layer is full attention"
        self._last: mx.array | None = None  # pre-norm output [1, H] for the last committed pair
        self._observed: mx.array | None = None  # those [w, H] for the pairs that wait for their commit
        self._begun: _Begun | None = None  # the draft after `_last`

    def ingest(self, hidden: Hidden, next_tokens: mx.array) -> None:
        self._begun = None
        layer, tapped, parts = self._module.layers[0], self._tap(hidden), parts_of(next_tokens.shape[0])

        def read(part: int, _: int) -> None:
            start, end = parts[part]
            entering = self._entering(tapped[start:end], next_tokens[start:end])
            self._last = self._target.run_layer_for_last(layer, entering, self._cache)
            self._cache.commit(end - start)
            hand_over(self._last, *self._cache.arrays())

        wave(len(parts), 1, read)

    def observe(self, hidden: Hidden, next_tokens: mx.array) -> None:
        self._observed = self._forward(self._tap(hidden), next_tokens)
        hand_over(self._observed)

    def commit(self, num_rows: int) -> None:
        assert self._observed is not None, "nothing observed"
        if num_rows:
            self._last = self._observed[num_rows - 1 : num_rows]
            # the device has something to do while the round's tokens are being dealt with
            self._begun = self._begin(self._last)
        self._cache.commit(num_rows)
        self._observed = None

    def _begin(self, out: mx.array) -> "_Begun":
        normed = self._norm(out)
        logits = self._target.logits(normed.astype(self._target.dtype))
        hand_over(logits)
        return _Begun(out, normed, logits)

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        assert self._last is not None, "nothing read yet"
        tokens: list[mx.array] = []
        probs, begun = [], self._begun or self._begin(self._last)
        for step in range(depth):
            token, distribution = sampler.draft(begun.logits, place, tokens)
            hand_over(token)
            tokens.append(token)
            probs.append(distribution)
            if step + 1 < depth:
                post_norm = self._conventions.chain_tap is ChainTap.POST_NORM
                begun = self._begin(self._forward(begun.normed if post_norm else begun.out, token))
        self._cache.commit(0)
        known = [p for p in probs if p is not None]
        return Draft(mx.concatenate(tokens), mx.concatenate(known) if known else None)

    def forced(self, tokens: mx.array, hidden: Hidden, depth: int) -> list[mx.array]:
        next_tokens = tokens[1:]
        layer, cache = self._module.layers[0], ForcedCache(next_tokens.shape[0])
        h, drafts = self._tap(hidden), []
        for step in range(depth):
            entering = self._entering(h[: next_tokens.shape[0] - step], next_tokens[step:])
            out = self._target.run_layer(layer, entering, cache, cache.begin(step))
            normed = self._norm(out)
            parts = (normed[at : at + _ROWS_OF_LOGITS] for at in range(0, normed.shape[0], _ROWS_OF_LOGITS))
            logits = (self._target.logits(part.astype(self._target.dtype)) for part in parts)
            drafts.append(mx.concatenate([mx.argmax(part, axis=-1) for part in logits]))
            h = normed if self._conventions.chain_tap is ChainTap.POST_NORM else out
        return drafts

    def tapped(self, hidden: Hidden) -> Hidden:
        rows = self._tap(hidden)
        return Hidden(rows, rows)

    def _tap(self, hidden: Hidden) -> mx.array:
        return hidden.post_norm if self._conventions.hidden_tap is HiddenTap.POST_NORM else hidden.pre_norm

    def _forward(self, h: mx.array, tokens: mx.array) -> mx.array:
        """The layer's rows ``[T, H]`` for hidden rows ``[T, H]`` and the tokens ``[T]`` after them."""
        mask = self._cache.mask(tokens.shape[0])
        return self._target.run_layer(self._module.layers[0], self._entering(h, tokens), self._cache, mask)

    def arrays(self) -> list[mx.array]:
        last = [] if self._last is None else [self._last]
        return self._cache.arrays() + last + ([] if self._begun is None else [self._begun.logits])


class QwenMtpLayout:
    """Tensors ``mtp.*``: `fc`, two norms, one decoder layer, `norm`; embedding and LM head are the trunk's."""

    name = "qwen_mtp"
    prefix = "mtp."
    choices: Mapping[str, Sequence[Any]] = {
        "norm_offset": (0.0, 1.0),
        "concat_order": tuple(ConcatOrder),
        "hidden_tap": tuple(HiddenTap),
        "chain_tap": tuple(ChainTap),
        "position_rule": (PositionRule.RUNNING,),
    }
    released = None
    unquantised = ("mlp.gate", "shared_expert_gate")
    float16 = True

    def normalise(self, tensors: Mapping[str, mx.array], files: HeadFiles) -> dict[str, mx.array]:
        return stack_experts({local_name(name).removeprefix(self.prefix): tensors[name] for name in tensors})

    def module(self, target: Target, files: HeadFiles) -> QwenMtpModule:
        return QwenMtpModule(target.hidden_size, target.norm_eps, target.make_head_layer())

    def head(self, module: Any, target: Target, conventions: Conventions) -> QwenMtpHead:
        return QwenMtpHead(module, target, conventions)


LAYOUT = QwenMtpLayout()
