"""What rounds cost: `auto` chooses by these figures, and a wrong one costs every text its speed."""

from itertools import pairwise

import mlx.core as mx
import pytest
from demo import demo, demo_head, prompts

from skulk_core.bench.round_costs import measure_rounds
from skulk_core.heads.base import DraftHead
from skulk_core.sampling.base import Draft, Place, Sampler
from skulk_core.sampling.settings import SamplingSettings
from skulk_core.sampling.stochastic import make_sampler


def _prompt() -> list[int]:
    return demo().tokenizer.encode(prompts()[3])


class _Counting(DraftHead):
    """The demo's head; says how many tokens it was asked to draft, round by round."""

    def __init__(self) -> None:
        self._head, self.depths = demo_head().head, list[int]()

    def __getattr__(self, name: str) -> object:
        return getattr(self._head, name)

    def ingest(self, hidden: object, next_tokens: mx.array) -> None:
        self._head.ingest(hidden, next_tokens)  # type: ignore[arg-type]

    def observe(self, hidden: object, next_tokens: mx.array) -> None:
        self._head.observe(hidden, next_tokens)  # type: ignore[arg-type]

    def commit(self, num_rows: int) -> None:
        self._head.commit(num_rows)

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        self.depths.append(depth)
        return self._head.draft(depth, sampler, place)

    def reset(self) -> None:
        self._head.reset()

    def arrays(self) -> list[mx.array]:
        return self._head.arrays()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_depths_take_turns_and_what_lies_between_is_interpolated(temperature: float) -> None:
    """A depth measured in another minute than the others would be judged by what else the machine did then."""
    head, sampler = _Counting(), make_sampler(SamplingSettings(temperature=temperature))
    costs = measure_rounds(demo().target, head, _prompt(), (1, 4), sampler, 2)
    # one round that is not timed and one that is
    assert head.depths == [1, 1, 4, 4] * 2
    assert len(costs) == 5
    assert all(0 < less <= more for less, more in pairwise(costs))
    step = (costs[4] - costs[1]) / 3
    assert costs[2:4] == pytest.approx((costs[1] + step, costs[1] + 2 * step))


def test_without_a_head_there_are_plain_rounds_alone() -> None:
    (plain_s,) = measure_rounds(demo().target, None, _prompt(), [0], make_sampler(SamplingSettings()), 1)
    assert plain_s > 0
