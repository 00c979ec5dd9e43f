"""Many chains at once: what a head would draft after every pair of a text, in one pass for each position."""

import mlx.core as mx

from skulk_core.cache.attention import AttentionCache


class ForcedCache(AttentionCache):
    """Keys and values of a text's ``T`` pairs and, beside them, of a chain of drafts that continues from each pair.

    Pass 0 are the pairs themselves; row ``t`` of pass ``i`` is the ``i``-th row of the chain after pair ``t``, at
    position ``t + i``. It sees the pairs up to ``t`` and the rows of its own chain, as it would if ``t`` were the last
    pair. A text's last pairs have no chains as long as the others': pass ``i`` has ``T - i`` rows.
    """

    def __init__(self, num_pairs: int) -> None:
        super().__init__()
        self._num_pairs, self._step = num_pairs, 0

    @property
    def offset(self) -> int:
        return self._step

    def begin(self, step: int) -> mx.array | str | None:
        """Begin pass ``step``; its mask."""
        self._step, rows = step, self._num_pairs - step
        if step == 0:
            return self.mask(rows)
        chains = [mx.eye(rows, self._num_pairs - earlier) for earlier in range(1, step + 1)]
        seen = mx.concatenate([mx.tri(rows, self._num_pairs), *chains], axis=1)
        return seen.astype(mx.bool_)
