"""What the parts of a round cost by themselves: draft, verify and settle, each waited for alone.

The loop overlaps building one part with computing another, so its rounds may be a little faster than the sum.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

from skulk_core.decode.exchange import Alone, Exchange
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Hidden, Target
from skulk_core.sampling.base import Draft, Sampler
from skulk_core.sampling.greedy import GreedySampler

_REPEATS = 15


@dataclass(frozen=True)
class Costs:
    """Median seconds.

    ``verify_s[w]``: a pass of w rows with its verdict; ``draft_s[d]``: d drafts; ``settle_s[w]``: the head's
    observation of a pass of w rows and the commit of some of it; ``commit_s``: a commit alone, as at depth 0.
    """

    verify_s: dict[int, float]
    draft_s: dict[int, float]
    settle_s: dict[int, float]
    commit_s: float

    def mean(self, other: "Costs") -> "Costs":
        """The mean of two measurements of the same rounds."""

        def each(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
            return {key: (ours[key] + theirs[key]) / 2 for key in ours}

        return Costs(
            each(self.verify_s, other.verify_s),
            each(self.draft_s, other.draft_s),
            each(self.settle_s, other.settle_s),
            (self.commit_s + other.commit_s) / 2,
        )

    def round_s(self, depth: int) -> float:
        """Seconds of a round at ``depth``, as the sum of its parts."""
        if depth == 0:
            return self.verify_s[1] + self.commit_s
        return self.draft_s[depth] + self.verify_s[depth + 1] + self.settle_s[depth + 1]


def measure_costs(
    target: Target,
    head: DraftHead | None,
    prompt: Sequence[int],
    depths: Sequence[int],
    sampler: Sampler | None = None,
    repeats: int = _REPEATS,
    exchange: Exchange | None = None,
) -> Costs:
    """Costs of the rounds at ``depths`` after ``prompt``; at depth 0 nothing is observed.

    With an ``exchange`` a pass includes its lap over the other hosts, whose caches then hold this text.
    """
    sampler, exchange = sampler or GreedySampler(), exchange or Alone(target)
    place = sampler.start(prompt, target.vocab_size)
    caches, committed = target.make_caches(), 0
    tokens = mx.array(list(prompt), mx.int32)
    exchange.begin()
    hidden = target.hidden(target.run(exchange.lap(0, tokens, 0, keep_all=True), caches))
    caches.commit(len(prompt))
    drafting = head if any(depths) else None
    if drafting is not None:
        drafting.read_from(caches)
        drafting.reset()
        drafting.ingest(hidden, mx.concatenate([tokens[1:], tokens[:1]]))
    mx.eval(caches.arrays(), drafting.arrays() if drafting else [])
    # what drafts are drawn from is a part of their verdict
    probs = None if drafting is None else drafting.draft(max(depths), sampler, place).probs
    mx.eval([] if probs is None else [probs])

    def verify(width: int) -> tuple[Hidden, list[mx.array]]:
        fed = tokens[:width]
        hidden = target.hidden(target.run(exchange.lap(committed, fed, caches.rows), caches))
        drawn_from = probs[: width - 1] if probs is not None and 1 < width <= len(probs) + 1 else None
        verdict = sampler.accept(target.logits(hidden.post_norm), Draft(fed[1:], drawn_from), place)
        return hidden, [verdict.num_accepted, verdict.tokens]

    def commit(num_rows: int) -> None:
        nonlocal committed
        caches.commit(num_rows)
        committed = num_rows

    def timed_verify(width: int) -> float:
        seconds = _seconds(lambda: verify(width)[1])
        commit(0)
        return seconds

    def timed_settle(num_rows: int, observe: bool) -> float:
        hidden, arrays = verify(num_rows)
        mx.eval(hidden.pre_norm, hidden.post_norm, *arrays)

        def settle() -> list[mx.array]:
            if observe and drafting is not None:
                drafting.observe(hidden, tokens[:num_rows])
                drafting.commit(1)
            # one row, whatever the width: it costs the same, and the text hardly grows while it is measured
            commit(1)
            return caches.arrays() + (drafting.arrays() if observe and drafting else [])

        return _seconds(settle)

    def timed_draft(depth: int) -> float:
        assert drafting is not None
        return _seconds(lambda: [drafting.draft(depth, sampler, place).tokens])

    drafted = [depth for depth in depths if depth]
    parts: dict[tuple[str, int], Callable[[], float]] = {}
    for width in sorted({1, *(depth + 1 for depth in depths)}):
        parts["verify", width] = partial(timed_verify, width)
    for depth in drafted:
        parts["draft", depth] = partial(timed_draft, depth)
        parts["settle", depth + 1] = partial(timed_settle, depth + 1, True)
    parts["commit", 1] = partial(timed_settle, 1, False)
    medians = _in_turn(parts, repeats)
    return Costs(
        verify_s={number: seconds for (name, number), seconds in medians.items() if name == "verify"},
        draft_s={number: seconds for (name, number), seconds in medians.items() if name == "draft"},
        settle_s={number: seconds for (name, number), seconds in medians.items() if name == "settle"},
        commit_s=medians["commit", 1],
    )


def _in_turn(parts: Mapping[tuple[str, int], Callable[[], float]], repeats: int) -> dict[tuple[str, int], float]:
    """Median seconds of each part, all measured in turn, so that drift hits them alike; the first turn is a warm-up."""
    seconds: dict[tuple[str, int], list[float]] = {part: [] for part in parts}
    for turn in range(repeats + 1):
        for part, measure in parts.items():
            measured = measure()
            if turn:
                seconds[part].append(measured)
    return {part: statistics.median(values) for part, values in seconds.items()}


def _seconds(work: Callable[[], list[mx.array]]) -> float:
    began = time.perf_counter()
    mx.eval(work())
    return time.perf_counter() - began
