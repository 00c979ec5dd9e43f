"""Keys and values of full attention: mlx-lm's cache, with an offset that commits move back."""

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from skulk_core.cache.base import LayerCache


class AttentionCache(LayerCache):
    """Full attention. Handed to mlx-lm's attention modules as their ``cache``.

    Rows ``[0, rows)`` of the buffers are committed, ``[rows, rows + pending)`` belong to the pass under way, and
    whatever lies beyond is spare room that the next pass overwrites.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kv = KVCache()

    @property
    def offset(self) -> int:
        """Position of the next row, as mlx-lm's RoPE asks for it."""
        return int(self._kv.offset)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take ``[1, Hkv, w, D]`` keys and values of a pass; return all rows so far."""
        self._fed(keys.shape[2])
        fetched: tuple[mx.array, mx.array] = self._kv.update_and_fetch(keys, values)
        return fetched

    def mask(self, num_rows: int) -> str | None:
        """Mask for a pass of ``num_rows`` over everything before it, as `scaled_dot_product_attention` takes it."""
        return "causal" if num_rows > 1 else None

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """Committed rows ``[1, Hkv, rows, D]``, for heads that read the target's own K/V."""
        keys, values = self.arrays()
        return keys[..., : self.rows, :], values[..., : self.rows, :]

    def _keep(self, num_rows: int) -> None:
        self._kv.offset = self.rows + num_rows

    def arrays(self) -> list[mx.array]:
        return [] if self._kv.keys is None else [self._kv.keys, self._kv.values]
