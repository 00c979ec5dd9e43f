"""The statistics of the probe on made-up hits, where it is known what should come out."""

import numpy as np
import pytest

from skulk_core.heads.verdict import Hits, Measured, Tokens, contenders, decide, lead
from skulk_core.types import ChainTap, ConcatOrder, Conventions, HiddenTap

N = 320
REFERENCE = Conventions(norm_offset=1.0)
OTHER = Conventions(norm_offset=0.0, concat_order=ConcatOrder.HIDDEN_FIRST)


def tokens(seed: int, frequent: float) -> Tokens:
    """Tokens of which about a share of ``frequent`` are one."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(N) < frequent, 0, rng.integers(1, 900, N)).astype(np.int32)


def hits(seed: int, share: float) -> Hits:
    drawn: Hits = np.random.default_rng([7, seed]).random(N) < share
    return drawn


def flipped(base: Hits, seed: int, share: float) -> Hits:
    """As ``base`` but for a share of the rows."""
    changed: Hits = base ^ hits(seed, share)
    return changed


def test_heads_that_know_nothing_are_refused() -> None:
    """Otherwise luck among many candidates passes for knowledge: here each hits as often as chance does."""
    for seed in range(300):
        came = tokens(seed, 0.08)
        dead = [Measured(Conventions(float(place)), hits(16 * seed + place, 0.08)) for place in range(16)]
        assert contenders(dead, came) == []
        assert decide(dead, came, REFERENCE).picked is None


def test_naming_the_most_frequent_token_is_not_knowledge() -> None:
    """Otherwise a head that always says a comma passes on text that is full of them."""
    came = tokens(1, 0.4)
    always = Measured(REFERENCE, came == 0)
    assert contenders([always], came) == []
    found = decide([always], came, REFERENCE)
    assert found.picked is None
    assert found.chance == found.candidates[0].first > 0.3


def test_a_weak_head_that_knows_something_is_taken() -> None:
    """A head of one draft in four is still worth its time on a large model."""
    came = tokens(2, 0.05)
    assert contenders([Measured(OTHER, hits(1, 0.25))], came)


def test_a_clear_winner_is_taken_against_the_reference() -> None:
    """Otherwise heads that differ from the release are wired as if they did not."""
    came, good = tokens(3, 0.05), hits(1, 0.7)
    measured = [Measured(REFERENCE, hits(2, 0.3)), Measured(OTHER, good)]
    assert [one.conventions for one in contenders(measured, came)] == [OTHER]
    found = decide([measured[0], Measured(OTHER, good, good & hits(3, 0.7))], came, REFERENCE)
    assert found.picked is not None
    assert found.picked.conventions == OTHER
    assert found.picked.second == pytest.approx(0.7, abs=0.06)
    assert found.alike == (found.picked,)
    assert [one.second for one in found.candidates][1] is None


def test_of_those_alike_the_reference_is_taken() -> None:
    """Otherwise noise decides, and another way each time."""
    came, good = tokens(4, 0.05), hits(1, 0.7)
    best = Measured(Conventions(1.0, hidden_tap=HiddenTap.PRE_NORM), good, good & hits(2, 0.7))
    flips = flipped(good, 3, 0.04)
    nearly = Measured(REFERENCE, flips, flips & hits(2, 0.7))
    assert nearly.accepted.sum() < best.accepted.sum()
    found = decide([best, nearly], came, REFERENCE)
    assert found.picked is not None
    assert found.picked.conventions == REFERENCE
    assert {one.conventions for one in found.alike} == {best.conventions, REFERENCE}
    assert found.candidates[0].conventions == best.conventions


def test_second_drafts_decide_where_first_ones_cannot() -> None:
    """The chain tap shows in no first draft."""
    came, good = tokens(5, 0.05), hits(1, 0.7)
    chained = Conventions(1.0, chain_tap=ChainTap.PRE_NORM)
    measured = [Measured(REFERENCE, good, good & hits(2, 0.3)), Measured(chained, good, good & hits(3, 0.7))]
    found = decide(measured, came, REFERENCE)
    assert found.picked is not None
    assert found.picked.conventions == chained


def test_standard_errors() -> None:
    """Against the formula in numbers: three rows of four ahead."""
    ahead, behind = np.array([True, True, True, False]), np.zeros(4, np.bool_)
    assert lead(ahead, behind) == pytest.approx(0.75 / (np.sqrt(0.75 * 0.25) / 2))
    assert lead(ahead, ahead) == 0.0
    assert lead(~behind, behind) == np.inf
    assert lead(behind, ~behind) == -np.inf
