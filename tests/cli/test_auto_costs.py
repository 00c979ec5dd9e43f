"""What `auto` goes by on a ring: rounds with their laps, however slow these are."""

import time
from types import SimpleNamespace

import mlx.core as mx
import pytest
from demo import demo, demo_head

from cli.depth import AUTO_MOST, ring_costs
from skulk_core.bench import round_costs
from skulk_core.decode.depth import AutoDepth
from skulk_core.decode.exchange import Alone
from skulk_core.decode.stats import Round
from skulk_core.models.base import Activations
from skulk_core.sampling.settings import SamplingSettings


class Far(Alone):
    """Laps that take ``lap_s`` more than they do, on a clock that is put forward instead of waited for."""

    brings_rows = True

    def __init__(self, lap_s: float) -> None:
        super().__init__(demo().target)
        self.lap_s, self.laps = lap_s, 0

    def perf_counter(self) -> float:
        return time.perf_counter() + self.laps * self.lap_s

    def lap(
        self,
        rows_committed: int,
        tokens: mx.array,
        position: int,
        *,
        keep_all: bool = False,
        last_row: bool = False,
    ) -> Activations:
        self.laps += 1
        return super().lap(rows_committed, tokens, position, keep_all=keep_all, last_row=last_row)


@pytest.mark.parametrize("lap_s", [0.05, 0.3, 2.0])
def test_every_depth_has_its_lap_and_a_slow_one_makes_drafts_deep(
    lap_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow link few drafts a round would waste most of what speculation is for."""
    far = Far(lap_s)
    monkeypatch.setattr(round_costs, "time", SimpleNamespace(perf_counter=far.perf_counter))
    head = demo_head().head
    round_s = ring_costs(demo(), head, SamplingSettings(), far)
    assert len(round_s) == AUTO_MOST + 1
    assert all(seconds > lap_s for seconds in round_s)
    # measuring it must not take minutes where a lap takes seconds
    assert far.laps * lap_s < 40
    policy = AutoDepth(round_s)
    for _ in range(40):
        depth = policy.next_depth()
        policy.saw(Round((1,) * (depth + 1), depth, depth))
    assert policy.next_depth() >= AUTO_MOST - 1
