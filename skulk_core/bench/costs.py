"""What the parts of a round cost by themselves: draft, verify and settle, each waited for alone.

The loop overlaps building one part with computing another, so its rounds may be a little faster than the sum.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import mlx.core as mx

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
        """Seconds of a round at ``depth``."""
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
) -> Costs:
    """Costs of the rounds at ``depths`` after ``prompt``; at depth 0 nothing is observed."""
    sampler = sampler or GreedySampler()
    place = sampler.start(prompt, target.vocab_size)
    caches = target.make_caches()
    tokens = mx.array(list(prompt), mx.int32)
    hidden = target.hidden(target.run(target.embed(tokens, 0), caches))
    caches.commit(len(prompt))
    drafting = head if any(depths) else None
    if drafting is not None:
        drafting.read_from(caches)
        drafting.reset()
        drafting.ingest(hidden, mx.concatenate([tokens[1:], tokens[:1]]))
    mx.eval(caches.arrays(), drafting.arrays() if drafting else [])

    def verify(width: int) -> tuple[Hidden, list[mx.array]]:
        fed = tokens[:width]
        hidden = target.hidden(target.run(target.embed(fed, caches.rows), caches))
        verdict = sampler.accept(target.logits(hidden.post_norm), Draft(fed[1:]), place)
        return hidden, [verdict.num_accepted, verdict.tokens]

    def timed_verify(width: int) -> float:
        seconds = _seconds(lambda: verify(width)[1])
        caches.commit(0)
        return seconds

    def timed_settle(num_rows: int, observe: bool) -> float:
        hidden, arrays = verify(num_rows)
        mx.eval(hidden.pre_norm, hidden.post_norm, *arrays)

        def settle() -> list[mx.array]:
            if observe and drafting is not None:
                drafting.observe(hidden, tokens[:num_rows])
                drafting.commit(1)
            # one row, whatever the width: it costs the same, and the text hardly grows while it is measured
            caches.commit(1)
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
