"""Keys and values of sliding-window attention, in a buffer that never overwrites what a commit may still need."""

import mlx.core as mx
from mlx_lm.models.base import create_causal_mask

from skulk_core.cache.base import LayerCache

# Spare rows behind the window: one copy of the window is paid for every so many rows.
_SPARE_ROWS = 256


class WindowCache(LayerCache):
    """Sliding-window attention over the last ``window`` rows. Handed to mlx-lm's attention modules as their ``cache``.

    Rows are appended in time order; when the buffer is full, the last ``window - 1`` committed rows move to the front
    of a new one. A refused row is just the end of the buffer moved back: unlike a ring that writes in place, nothing
    that a commit needs was ever overwritten.

    ``kept_rows`` more than ``window - 1`` are kept for heads that read the target's own keys and values.
    """

    def __init__(self, window: int, kept_rows: int | None = None) -> None:
        super().__init__()
        assert window > 0
        self.window = window
        self.kept_rows = window - 1 if kept_rows is None else kept_rows
        assert self.kept_rows >= window - 1, f"{kept_rows} rows for a window of {window}"
        self._keys: mx.array | None = None
        self._values: mx.array | None = None
        self._end = 0  # buffer rows [_end - kept, _end) are committed, with kept = min(rows, kept_rows)

    @property
    def mask_key(self) -> object:
        return type(self), self.window

    @property
    def offset(self) -> int:
        """Position of the next row, as mlx-lm's RoPE asks for it."""
        return self.rows + self.pending

    @property
    def _kept(self) -> int:
        return min(self.rows, self.kept_rows)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take ``[1, Hkv, w, D]`` keys and values of a pass; return the rows it may see, in time order."""
        width = keys.shape[2]
        start, fed = self._end - self._kept, self._end + self.pending
        if self._keys is None or self._values is None or fed + width > self._keys.shape[2]:
            self._keys = _moved(self._keys, keys, start, fed)
            self._values = _moved(self._values, values, start, fed)
            start, fed, self._end = 0, fed - start, self._kept
        stop = fed + width
        self._keys[..., fed:stop, :] = keys
        self._values[..., fed:stop, :] = values
        self._fed(width)
        # the first row of this feed sees window - 1 rows before it; what lies further back is not returned
        first = max(start, fed - (self.window - 1))
        return self._keys[..., first:stop, :], self._values[..., first:stop, :]

    def mask(self, num_rows: int) -> mx.array | str | None:
        """Mask for a pass of ``num_rows`` over the rows that `update_and_fetch` will return."""
        if num_rows == 1:
            return None
        before = min(self.offset, self.window - 1)
        if before + num_rows <= self.window:
            return "causal"
        mask: mx.array = create_causal_mask(num_rows, before, window_size=self.window)
        return mask

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """The last committed rows ``[1, Hkv, min(rows, kept_rows), D]`` in time order, whatever is pending.

        The last of them is at position ``rows - 1``. A query of this layer at position ``rows`` sees the last
        ``window - 1``; how many a head's query sees is the head's to know.
        """
        assert self._keys is not None, "a window that was fed nothing"
        assert self._values is not None
        start = self._end - self._kept
        return self._keys[..., start : self._end, :], self._values[..., start : self._end, :]

    def _keep(self, num_rows: int) -> None:
        self._end += num_rows

    def arrays(self) -> list[mx.array]:
        return [] if self._keys is None or self._values is None else [self._keys, self._values]


def _moved(buffer: mx.array | None, new: mx.array, start: int, end: int) -> mx.array:
    """A new buffer with rows ``[start, end)`` of the old in front and room for ``new`` and ``_SPARE_ROWS`` more."""
    batch, heads, width, dims = new.shape
    room = mx.zeros((batch, heads, width + _SPARE_ROWS, dims), new.dtype)
    if buffer is None or start == end:
        return room
    return mx.concatenate([buffer[..., start:end, :], room], axis=2)
