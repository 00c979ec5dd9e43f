"""How a head is wired, by measurement: which conventions make it draft what its trunk then writes.

The trunk writes short texts of its own, greedily. A head under candidate conventions is given each text, and after
every pair its first draft is compared with the token that came, and its second one, chained through its own output,
with the token after. A row counts once: where texts repeat, the same three tokens in a row are not counted again.
`verdict` decides.

Which position a chain of drafts has shows in few such rows, and in texts that repeat at a distance most of all. Where
candidates of other positions measure alike they are compared over longer texts, with every row, three drafts deep.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from skulk_core.errors import ConventionsUnknown
from skulk_core.heads.base import WiredHead
from skulk_core.heads.files import HeadFiles
from skulk_core.heads.loading import fitting_layout, head_module, released_conventions, resolve_precision
from skulk_core.heads.own_text import OwnText, write_texts
from skulk_core.heads.registry import HeadLayout
from skulk_core.heads.verdict import Hits, Measured, Probe, Shares, Tokens, contenders, decide, told_by_texts
from skulk_core.models.loading import LoadedModel
from skulk_core.models.registry import make_target
from skulk_core.types import Conventions

_SLOWEST_FIRST = ("norm_offset", "concat_order", "hidden_tap", "position_rule", "chain_tap")
_DEPTH = 2
_ROWS_WANTED = 320
_LEAST_ROWS = 40
# Whole texts: tokens of each, drafts after each row, and how few texts say nothing.
_LONGER, _DEPTH_OF_WHOLE, _LEAST_TEXTS = 96, 3, 8


def probe(
    model: LoadedModel,
    files: HeadFiles,
    *,
    precision: str = "auto",
    fixed: Mapping[str, Any] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Probe:
    """Measure how a head is wired to ``model``, among all conventions that its layout can follow.

    ``fixed`` conventions are taken as given; ``progress`` is called between passes. Raises `SidecarError` for a head
    that cannot be built, `ConventionsUnknown` if the model writes too little to measure by, `OptionError`.
    """
    layout = fitting_layout(model, files)
    wanted = candidates(layout, fixed or {})
    builder = _Builder(model, files, layout, resolve_precision(model, precision, layout))
    # before the texts are written: a head of another size is refused at once
    builder.head(wanted[0])
    texts = _enough(write_texts(model, progress))
    came = np.concatenate([text.came for text in texts] or [np.zeros(0, np.int32)])
    if len(came) < _LEAST_ROWS:
        reason = f"cannot be measured: the model writes too little by itself, {len(came)} tokens"
        raise ConventionsUnknown(files.origin, reason)
    reference = released_conventions(model, layout) or Conventions()
    found = decide(_measure(builder, wanted, texts, came, progress), came, reference)
    if len({one.conventions.position_rule for one in found.alike}) < 2:
        return found
    whole = [
        text for text in write_texts(model, progress, _LONGER) if len(text.tokens) - text.start > _DEPTH_OF_WHOLE + 1
    ]
    if len(whole) < _LEAST_TEXTS:
        return found
    accepted = {one.conventions: _accepted(builder.head(one.conventions), whole, progress) for one in found.alike}
    mx.clear_cache()
    return told_by_texts(found, accepted, reference)


def candidates(layout: HeadLayout, fixed: Mapping[str, Any]) -> list[Conventions]:
    """All conventions that heads of ``layout`` may have, with the ``fixed`` ones as they are.

    The norm offset changes last, for it costs most; the chain tap first, for it costs least.
    """
    values = [(fixed[name],) if name in fixed else layout.choices[name] for name in _SLOWEST_FIRST]
    return [Conventions(**dict(zip(_SLOWEST_FIRST, choice, strict=True))) for choice in itertools.product(*values)]


@dataclass(frozen=True)
class _Rows:
    """The rows of a text that count, ``[n]`` of its pairs: after pair ``t`` came token ``t + 2``, then ``t + 3``."""

    text: OwnText
    pairs: npt.NDArray[np.int64]

    @property
    def came(self) -> Tokens:
        """The tokens ``[n]`` that first drafts are compared with."""
        return np.array(self.text.tokens, np.int32)[self.pairs + 2]

    def hits(self, head: WiredHead, depth: int) -> list[Hits]:
        """For each position up to ``depth``, whether the draft is the token that came, ``[n]``."""
        tokens = mx.array(self.text.tokens, mx.int32)
        drafts = head.forced(tokens, self.text.hidden, depth)
        mx.eval(drafts)
        known = np.array(self.text.tokens)
        return [np.array(draft)[self.pairs] == known[self.pairs + 2 + step] for step, draft in enumerate(drafts)]


def _enough(texts: Iterable[OwnText]) -> list[_Rows]:
    """Texts until they have `_ROWS_WANTED` rows, or as many as there are."""
    found: list[_Rows] = []
    seen: set[tuple[int, ...]] = set()
    for text in texts:
        pairs = []
        for pair in range(text.start - 1, len(text.tokens) - _DEPTH - 1):
            if (row := text.tokens[pair : pair + 3]) not in seen:
                seen.add(row)
                pairs.append(pair)
        if pairs:
            found.append(_Rows(text, np.array(pairs)))
        if sum(len(rows.pairs) for rows in found) >= _ROWS_WANTED:
            break
    return found


def _accepted(head: WiredHead, texts: Sequence[OwnText], progress: Callable[[], None]) -> Shares:
    """Of each whole text, how many of `_DEPTH_OF_WHOLE` drafts would have been accepted after a row, in the mean."""
    means = []
    for text in texts:
        drafts = head.forced(mx.array(text.tokens, mx.int32), text.hidden, _DEPTH_OF_WHOLE)
        mx.eval(drafts)
        known, first = np.array(text.tokens), text.start - 1
        rows = len(known) - _DEPTH_OF_WHOLE - 1
        hits = [np.array(draft)[first:rows] == known[first + 2 + i : rows + 2 + i] for i, draft in enumerate(drafts)]
        means.append(np.cumprod(np.stack(hits), axis=0).sum(axis=0).mean())
        progress()
    return np.array(means)


class _Builder:
    """Heads under candidate conventions; weights are read anew only where the norm offset changes them."""

    def __init__(self, model: LoadedModel, files: HeadFiles, layout: HeadLayout, precision: str) -> None:
        self._model, self._files, self._layout, self._precision = model, files, layout, precision
        self._built: tuple[float, LoadedModel, Any] | None = None

    def head(self, conventions: Conventions) -> WiredHead:
        """The head under ``conventions``. Raises `SidecarError`."""
        offset = conventions.norm_offset
        if self._built is None or self._built[0] != offset:
            self._built = None
            # a target remembers the layers it ran: one of our own, so that what was measured does not stay in memory
            whole = self._model.target
            scratch = replace(self._model, target=make_target(whole.model, whole.layer_range))
            module = head_module(scratch, self._files, self._layout, offset, self._precision)
            self._built = offset, scratch, module
        _, scratch, module = self._built
        return self._layout.head(module, scratch.target, conventions)


def _measure(
    builder: _Builder,
    wanted: Sequence[Conventions],
    texts: Sequence[_Rows],
    came: Tokens,
    progress: Callable[[], None],
) -> list[Measured]:
    """First drafts under every candidate, second ones under those that are not clearly worse by then."""

    def hits(conventions: Conventions, depth: int) -> list[Hits]:
        head, by_text = builder.head(conventions), []
        for rows in texts:
            by_text.append(rows.hits(head, depth))
            progress()
        return [np.concatenate(step) for step in zip(*by_text, strict=True)]

    measured: list[Measured] = []
    for conventions in wanted:
        # the chain tap changes nothing before the second draft
        twin = measured and replace(measured[-1].conventions, chain_tap=conventions.chain_tap) == conventions
        first = measured[-1].first if twin else hits(conventions, 1)[0]
        measured.append(Measured(conventions, first))
    near = {one.conventions for one in contenders(measured, came)}
    for place, one in enumerate(measured):
        if one.conventions in near:
            second = hits(one.conventions, _DEPTH)[1]
            measured[place] = replace(one, both=one.first & second)
    mx.clear_cache()
    return measured
