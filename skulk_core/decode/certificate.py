"""The certificate: would plain decoding have chosen these tokens?

The emitted tokens are replayed through fresh caches, the prompt as plain decoding reads it and then one row at a time
at depth 0; for each position the replay says what plain decoding would have taken and by how much its logit leads.
A divergence at a gap beyond the bound is a bug, never noise. The bound is measured beforehand, on other text.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import mlx.core as mx

from skulk_core.decode.decoder import PREFILL_ROWS
from skulk_core.decode.exchange import Alone, Exchange
from skulk_core.models.base import Target
from skulk_core.sampling.greedy import GreedySampler, gaps_of
from skulk_core.sampling.processors import Processors
from skulk_core.sampling.settings import SamplingSettings

# Rows whose logits are looked at together: one wait for the device each.
_ROWS_A_WAIT = 32
# Other text may do worse than the one measured.
_MARGIN = 2.0
# The text that is measured has this many rows, or three of the widest passes.
_BOUND_ROWS = 96
# Passes of every width up to this are measured, and the widest: rounding does not grow evenly with the width, and
# rounds are narrower than asked for where a text ends or fewer drafts are worth their cost.
_EVERY_WIDTH = 8
# The best logits of a row, any two of which may be turned over.
_LEADING = 8


@dataclass(frozen=True)
class Divergence:
    """Position in the answer, the token emitted there, the one plain decoding takes, and by how much it leads."""

    position: int
    emitted: int
    plain: int
    gap: float


@dataclass(frozen=True)
class Certificate:
    """What the comparison found. ``smallest_gap`` is that between the two best logits of any position."""

    compared: int
    divergences: tuple[Divergence, ...]
    smallest_gap: float | None
    bound: float

    @property
    def holds(self) -> bool:
        """Whether every divergence is one that rounding explains."""
        return all(divergence.gap <= self.bound for divergence in self.divergences)

    @property
    def is_exact(self) -> bool:
        """Whether plain decoding would have chosen every token."""
        return not self.divergences


def certify(
    target: Target,
    prompt: Sequence[int],
    answer: Sequence[int],
    bound: float,
    settings: SamplingSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
    exchange: Exchange | None = None,
) -> Certificate:
    """Compare ``answer`` with plain greedy decoding after ``prompt``, penalties and bias of ``settings`` included.

    After a divergence the replay goes on with the emitted token: every position is judged after the same text. With an
    ``exchange`` the replay goes through the other hosts, whose caches then hold it.
    """
    settings = settings or SamplingSettings()
    assert settings.is_greedy, "drawn tokens cannot be compared one by one"
    place = GreedySampler(settings).start(prompt, target.vocab_size)
    processors, replay = Processors(settings), _Replay(target, exchange)
    logits = replay.read(prompt)
    divergences: list[Divergence] = []
    smallest: float | None = None
    for start in range(0, len(answer), _ROWS_A_WAIT):
        emitted = list(answer[start : start + _ROWS_A_WAIT])
        rows = []
        for token in emitted:
            rows.append(processors(logits, place))
            fed = mx.array([token], mx.int32)
            place = place.after(fed)
            logits = replay.step(fed)
        found, gap = _judged(mx.concatenate(rows), emitted, start)
        divergences += found
        smallest = gap if smallest is None else min(smallest, gap)
        if progress is not None:
            progress(start + len(emitted), len(answer))
    return Certificate(len(answer), tuple(divergences), smallest, bound)


def measure_bound(
    target: Target,
    text: Sequence[int],
    widest: int,
    exchange: Exchange | None = None,
    *,
    in_pieces: bool = False,
) -> float:
    """The greatest gap between two logits that passes of up to ``widest`` rows may turn over, from a ``text``.

    Of every row the leading logits of a wide pass are compared with those of one-row passes over the same tokens, and
    so are those of one-row passes over caches that wide ones wrote: what counts is by how much two of them move against
    each other. With ``in_pieces`` also those of a text that was read at once with those of one read in pieces, as the
    turns of a conversation are, or row by row, as what is read again after a host was lost. 0 where nothing is read or
    decided in another way than plain decoding does.
    """
    assert len(text) >= 2, "a text of at least two tokens"
    length = max(_BOUND_ROWS, 3 * widest)
    rows = mx.array((list(text) * -(-length // len(text)))[:length], mx.int32)
    worst = 0.0
    if widest > 1:
        widths = sorted({*range(2, min(widest, _EVERY_WIDTH) + 1), widest})
        plain = _Replay(target, exchange).in_passes(rows, [1] * length)
        alone = [width for wide in widths for width in (wide, 1, 1)]
        for passes in (widths, alone):
            found = _Replay(target, exchange).in_passes(rows, _repeated(passes, length))
            worst = max(worst, _moved(found, plain))
    if in_pieces:
        read, half = 3 * length // 4, length // 3
        left = [1] * (length - read)
        at_once = _Replay(target, exchange).in_passes(rows, [read, *left])
        for others in ([half, read - half, *left], [1] * length):
            found = _Replay(target, exchange).in_passes(rows, others)
            worst = max(worst, _moved(found[read - 1 :], at_once[read - 1 :]))
    return _MARGIN * worst


def _repeated(widths: Sequence[int], length: int) -> list[int]:
    """``widths`` again and again until they are ``length`` rows, the last one cut."""
    passes: list[int] = []
    left = length
    while left:
        width = min(widths[len(passes) % len(widths)], left)
        passes.append(width)
        left -= width
    return passes


def _moved(found: mx.array, plain: mx.array) -> float:
    """By how much any two of the leading logits of a row ``[T, V]`` moved against each other at most."""
    leading = mx.argpartition(-plain, min(_LEADING, plain.shape[-1]) - 1, axis=-1)[:, :_LEADING]
    off = mx.take_along_axis(found - plain, leading, axis=-1)
    worst = (off.max(axis=-1) - off.min(axis=-1)).max().item()
    assert isinstance(worst, float)
    return worst


class _Replay:
    """Feeds one text to fresh caches, here and on the other hosts."""

    def __init__(self, target: Target, exchange: Exchange | None) -> None:
        self._target, self._exchange = target, exchange or Alone(target)
        self._caches, self._committed = target.make_caches(), 0
        self._exchange.begin()

    def read(self, prompt: Sequence[int]) -> mx.array:
        """Feed ``prompt`` as plain decoding does; logits ``[1, V]`` after it."""
        target, caches = self._target, self._caches
        tokens, read = mx.array(list(prompt), mx.int32), 0
        with closing(self._exchange.prompt(self._committed, tokens, 0, PREFILL_ROWS, last_row=True)) as parts:
            while read < len(prompt):
                entering = next(parts)
                hidden = target.hidden(target.run_and_commit(entering, caches, last_row=True))
                self._committed = len(entering)
                read += len(entering)
                mx.eval(hidden.post_norm, *caches.arrays())
        return target.logits(hidden.post_norm[-1:])

    def step(self, token: mx.array) -> mx.array:
        """Logits ``[1, V]`` after one more ``token`` ``[1]``."""
        logits = self._fed(token)
        mx.async_eval(logits)
        return logits

    def in_passes(self, tokens: mx.array, widths: Sequence[int]) -> mx.array:
        """Logits ``[T, V]``, float32, of ``tokens`` fed in passes of ``widths``."""
        rows, start = [], 0
        for width in widths:
            rows.append(self._fed(tokens[start : start + width]).astype(mx.float32))
            mx.eval(rows[-1], *self._caches.arrays())
            start += width
        return mx.concatenate(rows)

    def _fed(self, tokens: mx.array) -> mx.array:
        """Logits of one pass, of which every row stays."""
        entering = self._exchange.lap(self._committed, tokens, self._caches.rows)
        hidden = self._target.hidden(self._target.run(entering, self._caches))
        self._committed = tokens.shape[0]
        self._caches.commit(self._committed)
        return self._target.logits(hidden.post_norm)


def _judged(logits: mx.array, emitted: Sequence[int], start: int) -> tuple[list[Divergence], float]:
    """Divergences of ``emitted`` from the argmax of ``[n, V]``, and the smallest gap of the rows."""
    logits = logits.astype(mx.float32)
    best = mx.argmax(logits, axis=-1)
    taken = mx.take_along_axis(logits, mx.array(list(emitted), mx.int32)[:, None], axis=-1).squeeze(-1)
    behind, gaps = logits.max(axis=-1) - taken, gaps_of(logits)
    mx.eval(best, behind, gaps)
    choices: list[int] = best.tolist()  # type: ignore[assignment]
    leads: list[float] = behind.tolist()  # type: ignore[assignment]
    between: list[float] = gaps.tolist()  # type: ignore[assignment]
    divergences = [
        Divergence(start + row, token, choice, leads[row])
        for row, (token, choice) in enumerate(zip(emitted, choices, strict=True))
        if token != choice
    ]
    return divergences, min(between)
