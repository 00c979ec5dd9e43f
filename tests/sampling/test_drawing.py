"""Drawing one token: every number in [0, 1) falls on a token that may come, and unlikely ones get their share."""

import mlx.core as mx
import numpy as np
import pytest

from skulk_core.sampling import drawing
from skulk_core.sampling.drawing import draw, num_uniforms

LAST = float(np.nextafter(np.float32(1), np.float32(0)))
LARGE = 150_000


@pytest.fixture(params=[0, 1, 2, 3, 512], ids=lambda block: f"block{block}" if block else "at-once")
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Small vocabularies drawn as large ones are, in blocks of so many tokens; 0: as small ones."""
    if request.param:
        monkeypatch.setattr(drawing, "_BLOCK", request.param)
        monkeypatch.setattr(drawing, "_MOST_AT_ONCE", 0)
    return int(request.param)


def drawn(weights: list[float], uniform: float) -> int:
    """The token that every number, being ``uniform``, falls on; the same of a row as of a vector."""
    numbers, row = mx.array([uniform] * num_uniforms(len(weights))), mx.array(weights, mx.float32)
    token = draw(row, numbers)
    assert token.shape == ()
    assert draw(row[None], numbers).tolist() == [token.item()]
    return int(token.item())


@pytest.mark.parametrize("scale", [1.0, 1e-30, 3.7])
def test_only_tokens_with_weight_come(block: int, scale: float) -> None:
    """Weight 0 at both ends and between; a banned token must not come even where a number is nearly 0 or 1."""
    weights = [scale * weight for weight in (0, 0, 0.2, 0, 0.3, 0.5, 0, 0)]
    assert drawn(weights, 0.0) == 2
    assert drawn(weights, 1e-12) == 2
    assert drawn(weights, LAST) == 5
    assert {drawn(weights, uniform) for uniform in np.linspace(0, LAST, 50)} <= {2, 4, 5}
    for only in range(8):
        assert {drawn([scale * (token == only) for token in range(8)], u) for u in (0.0, 0.5, LAST)} == {only}


def test_the_greatest_number_falls_within_any_weights(block: int) -> None:
    """Rounding must not carry it past the whole, or token 0 would come for the last."""
    weights = np.random.default_rng(0).random((20_000, 7)).astype(np.float32)
    tokens = mx.vmap(lambda row: draw(row, mx.array([LAST] * num_uniforms(7))))(mx.array(weights))
    assert (np.array(tokens) == 6).all()


def test_shares_are_the_weights(block: int) -> None:
    """All numbers of a fine grid: each token's share of them is its weight, to the grid's width."""
    weights, steps, count = [1.0, 0.0, 4.0, 2.0, 1.0], 160, num_uniforms(5)
    grid = (
        np.stack(np.meshgrid(*[(np.arange(steps) + 0.5) / steps] * count), axis=-1)
        .reshape(-1, count)
        .astype(np.float32)
    )
    tokens = mx.vmap(lambda uniforms: draw(mx.array(weights), uniforms))(mx.array(grid))
    shares = np.bincount(np.array(tokens), minlength=5) / len(grid)
    assert shares == pytest.approx(np.array(weights) / 8, abs=2 / steps)


@pytest.mark.parametrize("share", [0.0045, 0.05, 1.0])
def test_unlikely_tokens_of_a_large_vocabulary_get_their_share(share: float) -> None:
    """One likely token and 150,000 unlikely ones after it: summed in float32 one by one, most of them would vanish."""
    weights = np.full(LARGE + 1, share / LARGE, np.float32)
    weights[0] = 1 - share
    uniforms = mx.random.uniform(shape=(20_000, 2), key=mx.random.key(1))
    tokens = np.array(mx.vmap(draw, in_axes=(None, 0))(mx.array(weights), uniforms))
    deviation = (share * (1 - share) / len(tokens)) ** 0.5
    assert (tokens > 0).mean() == pytest.approx(share, abs=4 * deviation + 1e-12)
    # and evenly: the sum of many equal terms drifts within each power of two
    tenths = np.bincount((tokens[tokens > 0] - 1) * 10 // LARGE, minlength=10)
    assert ((tenths - tenths.mean()) ** 2).sum() / tenths.mean() < 34  # chi-square, 9 degrees, one in 10^4


def test_blocks_of_a_large_vocabulary_begin_where_exact_sums_say() -> None:
    """Against float64, on a fine comb of numbers: at most a few of its 20,000 teeth fall into another block."""
    random = np.random.default_rng(2)
    weights = np.exp(3 * random.normal(size=LARGE)).astype(np.float32)
    teeth = 20_000
    comb = mx.array(((np.arange(teeth) + 0.5) / teeth).astype(np.float32))
    halves = mx.array(np.full(teeth, 0.5, np.float32))
    tokens = np.array(mx.vmap(lambda a, b: draw(mx.array(weights), mx.stack([a, b])))(comb, halves))
    exact = np.cumsum(weights.astype(np.float64).reshape(-1, 1)[: LARGE // 512 * 512].reshape(-1, 512).sum(axis=1))
    blocks = np.searchsorted(exact / weights.astype(np.float64).sum(), (np.arange(teeth) + 0.5) / teeth, side="right")
    # a tooth that stands on a block's edge may fall to either side
    assert (tokens // 512 != blocks).sum() <= 4


def test_the_largest_vocabulary_summed_at_once_loses_next_to_nothing() -> None:
    """The sum's own steps are what a token gets: against float64, and some likely tokens before many unlikely ones."""
    random = np.random.default_rng(3)
    size = drawing._MOST_AT_ONCE
    for weights in (np.exp(3 * random.normal(size=size)), np.r_[[0.7, 0.2], np.full(size - 2, 0.1 / (size - 2))]):
        rounded = (weights / weights.sum()).astype(np.float32)
        got = np.diff(np.array(mx.cumsum(mx.array(rounded))).astype(np.float64), prepend=0.0)
        wanted = rounded.astype(np.float64)
        assert np.abs(got / got.sum() - wanted / wanted.sum()).sum() / 2 < 2e-4
