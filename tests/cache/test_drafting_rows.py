"""What a head reads of the trunk's keys and values: committed rows, and as many as it may see."""

import random

import mlx.core as mx
import pytest

from skulk_core.cache import window
from skulk_core.cache.attention import AttentionCache
from skulk_core.cache.borrowed import BorrowedCache
from skulk_core.cache.window import WindowCache


@pytest.mark.parametrize("spare_rows", [0, 3, 256])
@pytest.mark.parametrize(("width", "kept"), [(1, 2), (4, 5), (4, None), (16, 17)])
def test_a_window_shows_the_last_committed_rows(
    width: int, kept: int | None, spare_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while a pass is under way and after refused rows: else a head attends to drafts that fell."""
    monkeypatch.setattr(window, "_SPARE_ROWS", spare_rows)
    cache, draw, text = WindowCache(width, kept), random.Random(width + spare_rows), 0
    most = width - 1 if kept is None else kept
    for _ in range(60):
        rows = draw.randint(1, 6)
        fed = mx.arange(text, text + rows, dtype=mx.float32)
        keys = mx.broadcast_to(fed[None, None, :, None], (1, 2, rows, 3))
        seen, _ = cache.update_and_fetch(keys, -keys)
        # the attention's own rows are not more for those kept besides
        assert seen[0, 0, :, 0].tolist() == list(range(max(0, text - width + 1), text + rows))
        if text:
            assert _numbers(cache) == list(range(max(0, text - most), text))
        keep = draw.randint(0, rows)
        cache.commit(keep)
        text += keep
        assert _numbers(cache) == list(range(max(0, text - most), text))


def _numbers(cache: WindowCache) -> list[float]:
    keys, values = cache.keys_and_values()
    assert mx.array_equal(keys, -values)
    numbers: list[float] = keys[0, 1, :, 2].tolist()  # type: ignore[assignment]
    return numbers


def test_fewer_rows_than_attention_needs_cannot_be_asked_for() -> None:
    with pytest.raises(AssertionError, match="3 rows for a window of 5"):
        WindowCache(5, 3)


def test_a_layer_that_borrows_counts_and_never_masks_by_itself() -> None:
    """Its lender is further by the time it runs: a mask made then would shift what every row may see."""
    lender = AttentionCache()
    cache = BorrowedCache(lender)
    assert cache.mask_key == lender.mask_key
    with pytest.raises(AssertionError, match="before its lender"):
        cache.mask(3)
    cache.feed(3)
    cache.commit(2)
    assert (cache.rows, cache.pending, cache.nbytes) == (2, 0, 0)
    with pytest.raises(AssertionError, match="can lend"):
        BorrowedCache(cache)
