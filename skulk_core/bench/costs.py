"""What the parts of a round cost by themselves: lap, draft, verify and settle, each waited for alone.

The loop overlaps building one part with computing another, so its rounds may be a little faster than the sum.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx

from skulk_core.decode.exchange import Alone, Exchange
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Hidden, Target
from skulk_core.sampling.base import Draft, Sampler
from skulk_core.sampling.greedy import GreedySampler

# (seconds of a pass over one row up to which, repeats of every part)
_EFFORT = ((0.03, 15), (0.15, 5), (float("inf"), 2))
_Parts = Mapping[tuple[str, int], Callable[[], float]]


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Costs:
    """Median seconds.

    ``verify_s[w]``: a pass of w rows with its verdict; ``draft_s[d]``: d drafts; ``settle_s[w]``: the head's
    observation of a pass of w rows and the commit of some of it; ``commit_s``: a commit alone, as at depth 0.
    ``lap_s[w]``, of a ring: what of the pass is waiting for the rows, that is links and the layers of other ranks.
    """

    verify_s: dict[int, float]
    draft_s: dict[int, float]
    settle_s: dict[int, float]
    commit_s: float
    lap_s: dict[int, float] = field(default_factory=dict)

    def mean(self, other: "Costs") -> "Costs":
        """The mean of two measurements of the same rounds."""

        def each(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
            return {key: (ours[key] + theirs[key]) / 2 for key in ours}

        return Costs(
            each(self.verify_s, other.verify_s),
            each(self.draft_s, other.draft_s),
            each(self.settle_s, other.settle_s),
            (self.commit_s + other.commit_s) / 2,
            each(self.lap_s, other.lap_s),
        )

    def round_s(self, depth: int) -> float:
        """Seconds of a round at ``depth``, as the sum of its parts."""
        if depth == 0:
            return self.verify_s[1] + self.commit_s
        return self.draft_s[depth] + self.verify_s[depth + 1] + self.settle_s[depth + 1]

    def as_frame(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read_costs(frame: Mapping[str, Any]) -> Costs:
    """What `Costs.as_frame` wrote, once it has been JSON, whose keys are texts."""

    def keyed(name: str) -> dict[int, float]:
        return {int(key): float(seconds) for key, seconds in frame[name].items()}

    return Costs(keyed("verify_s"), keyed("draft_s"), keyed("settle_s"), float(frame["commit_s"]), lap_s=keyed("lap_s"))


def measure_costs(
    target: Target,
    head: DraftHead | None,
    prompt: Sequence[int],
    depths: Sequence[int],
    sampler: Sampler | None = None,
    repeats: int | None = None,
    exchange: Exchange | None = None,
    check: Callable[[], None] = _nothing,
) -> Costs:
    """Costs of the rounds at ``depths`` after ``prompt``; at depth 0 nothing is observed.

    With an ``exchange`` a pass includes its lap over the other hosts, whose caches then hold this text. ``check`` is
    called between parts and may raise. Without ``repeats`` slow passes are measured less often.
    """
    measured = _Rounds(target, head, prompt, depths, sampler, exchange)
    if repeats is None:
        repeats = _repeats_for(measured.verify(1), measured.verify(1))
    parts: dict[tuple[str, int], Callable[[], float]] = {}
    widths = sorted({1, *(depth + 1 for depth in depths)})
    for width in widths:
        parts["verify", width] = partial(measured.verify, width)
        if exchange is not None and exchange.brings_rows:
            parts["lap", width] = partial(measured.lap, width)
    for depth in [depth for depth in depths if depth]:
        parts["draft", depth] = partial(measured.draft, depth)
        parts["settle", depth + 1] = partial(measured.settle, depth + 1, True)
    parts["commit", 1] = partial(measured.settle, 1, False)
    medians = _in_turn(parts, repeats, check)

    def named(part: str) -> dict[int, float]:
        return {number: seconds for (name, number), seconds in medians.items() if name == part}

    return Costs(named("verify"), named("draft"), named("settle"), medians["commit", 1], named("lap"))


class _Rounds:
    """Rounds after a text, part by part; each method returns the seconds that its part took.

    Whatever is measured, one row at most is kept: the text hardly grows while it is measured.
    """

    def __init__(
        self,
        target: Target,
        head: DraftHead | None,
        prompt: Sequence[int],
        depths: Sequence[int],
        sampler: Sampler | None,
        exchange: Exchange | None,
    ) -> None:
        self._target, self._sampler = target, sampler or GreedySampler()
        self._exchange = exchange or Alone(target)
        self._place = self._sampler.start(prompt, target.vocab_size)
        self._caches, self._committed = target.make_caches(), len(prompt)
        self._tokens = tokens = mx.array(list(prompt), mx.int32)
        self._exchange.begin()
        entering = self._exchange.lap(0, tokens, 0, keep_all=True)
        hidden = target.hidden(target.run(entering, self._caches))
        self._caches.commit(len(prompt))
        self._head = head if any(depths) else None
        if self._head is not None:
            self._head.read_from(self._caches)
            self._head.reset()
            self._head.ingest(hidden, mx.concatenate([tokens[1:], tokens[:1]]))
        mx.eval(self._caches.arrays(), self._head.arrays() if self._head else [])
        # what drafts are drawn from is a part of their verdict
        head = self._head
        self._probs = None if head is None else head.draft(max(depths), self._sampler, self._place).probs
        mx.eval([] if self._probs is None else [self._probs])

    def lap(self, width: int) -> float:
        """Rows to the other ranks and back, none of which is kept."""
        seconds = _seconds(lambda: [self._exchange.lap(self._committed, self._tokens[:width], self._caches.rows).h])
        self._committed = 0
        return seconds

    def verify(self, width: int) -> float:
        """A pass with its verdict; nothing of it is kept."""
        seconds = _seconds(lambda: self._pass(width)[1])
        self._commit(0)
        return seconds

    def settle(self, num_rows: int, observe: bool) -> float:
        """The commit of a pass of ``num_rows``, and with ``observe`` what the head reads of it."""
        hidden, arrays = self._pass(num_rows)
        mx.eval(hidden.pre_norm, hidden.post_norm, *arrays)
        head = self._head if observe else None

        def settle() -> list[mx.array]:
            if head is not None:
                head.observe(hidden, self._tokens[:num_rows])
                head.commit(1)
            # one row, whatever the width: it costs the same
            self._commit(1)
            return self._caches.arrays() + (head.arrays() if head else [])

        return _seconds(settle)

    def draft(self, depth: int) -> float:
        """Drafts alone."""
        head = self._head
        assert head is not None
        return _seconds(lambda: [head.draft(depth, self._sampler, self._place).tokens])

    def _pass(self, width: int) -> tuple[Hidden, list[mx.array]]:
        fed, probs = self._tokens[:width], self._probs
        entering = self._exchange.lap(self._committed, fed, self._caches.rows)
        hidden = self._target.hidden(self._target.run(entering, self._caches))
        drawn_from = probs[: width - 1] if probs is not None and 1 < width <= len(probs) + 1 else None
        verdict = self._sampler.accept(self._target.logits(hidden.post_norm), Draft(fed[1:], drawn_from), self._place)
        return hidden, [verdict.num_accepted, verdict.tokens]

    def _commit(self, num_rows: int) -> None:
        self._caches.commit(num_rows)
        self._committed = num_rows


def _repeats_for(_warm_up: float, pass_s: float) -> int:
    return next(repeats for most_s, repeats in _EFFORT if pass_s <= most_s)


def _in_turn(parts: _Parts, repeats: int, check: Callable[[], None]) -> dict[tuple[str, int], float]:
    """Median seconds of each part, all measured in turn, so that drift hits them alike; the first turn is a warm-up."""
    seconds: dict[tuple[str, int], list[float]] = {part: [] for part in parts}
    for turn in range(repeats + 1):
        for part, measure in parts.items():
            check()
            measured = measure()
            if turn:
                seconds[part].append(measured)
    return {part: statistics.median(values) for part, values in seconds.items()}


def _seconds(work: Callable[[], list[mx.array]]) -> float:
    began = time.perf_counter()
    mx.eval(work())
    return time.perf_counter() - began
