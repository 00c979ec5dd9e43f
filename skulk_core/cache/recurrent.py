"""Memory of recurrent layers: a state matrix and the window of a short convolution, both able to keep a prefix.

A gated delta or Mamba-2 (SSD) layer writes one outer product per row: ``S_t = g_t S_{t-1} + d_t k_t^T``. A pass
records the writes, so the state after its first ``n`` rows is one product, ``G_n S_0 + sum (G_n / G_i) d_i k_i^T``:
no weights, no recurrence, no replay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from skulk_core.cache.base import LayerCache


class PassRecord(Protocol):
    """What a pass leaves behind so that its cache can keep any prefix of it."""

    def state_after(self, num_rows: int) -> mx.array:
        """State after the first ``num_rows`` rows, at least one."""
        ...


@dataclass(frozen=True)
class OuterProductWrites:
    """The writes of one pass, float32, with any leading (head) axes.

    ``state`` ``[..., Dv, Dk]`` before the pass, ``log_decay`` ``[..., T]`` cumulative, ``writes`` ``[..., T, Dv]``,
    ``keys`` ``[..., T, Dk]``; ``final`` the state after all rows where the pass computed it anyway.
    """

    state: mx.array
    log_decay: mx.array
    writes: mx.array
    keys: mx.array
    final: mx.array | None = None

    @staticmethod
    def concatenate(records: Sequence["OuterProductWrites"]) -> "OuterProductWrites":
        """One record of passes over different heads (the first axis) and the same rows, all with a ``final``."""
        names = ("state", "log_decay", "writes", "keys", "final")
        return OuterProductWrites(*(mx.concatenate([getattr(record, name) for record in records]) for name in names))

    def state_after(self, num_rows: int) -> mx.array:
        if self.final is not None and num_rows == self.log_decay.shape[-1]:
            return self.final
        log_decay, writes = self.log_decay[..., :num_rows], self.writes[..., :num_rows, :]
        last = log_decay[..., -1:]
        if num_rows > 1:
            writes = writes * mx.exp(last - log_decay)[..., None]
        return mx.exp(last)[..., None] * self.state + writes.swapaxes(-1, -2) @ self.keys[..., :num_rows, :]


@dataclass(frozen=True)
class KernelPass:
    """A pass whose kernel gave only the last state; the writes are worked out if a shorter prefix is kept."""

    final: mx.array
    num_rows: int
    writes: Callable[[], OuterProductWrites]

    def state_after(self, num_rows: int) -> mx.array:
        return self.final if num_rows == self.num_rows else self.writes().state_after(num_rows)


class RecurrentCache(LayerCache):
    """State and convolution window of one recurrent layer. Both are None until the first commit: zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.state: mx.array | None = None
        self.conv_window: mx.array | None = None
        self._conv_input: mx.array | None = None
        self._record: PassRecord | None = None

    def feed(self, conv_input: mx.array, record: PassRecord) -> None:
        """Take a pass: ``conv_input`` ``[K - 1 + w, C]`` (the old window, then the pass's rows) and its record."""
        assert self.pending == 0, f"fed a pass while {self.pending} rows wait for their commit"
        window = 0 if self.conv_window is None else self.conv_window.shape[0]
        self._fed(conv_input.shape[0] - window)
        self._conv_input, self._record = conv_input, record

    def window_or_zeros(self, kernel_size: int, channels: int, dtype: mx.Dtype) -> mx.array:
        """The convolution window to prepend to a pass: ``[K - 1, C]``."""
        if self.conv_window is None:
            self.conv_window = mx.zeros((kernel_size - 1, channels), dtype)
        return self.conv_window

    def _keep(self, num_rows: int) -> None:
        if num_rows:
            assert self._conv_input is not None
            assert self._record is not None
            assert self.conv_window is not None
            window = self.conv_window.shape[0]
            # copied, or the window would keep the whole pass alive
            self.conv_window = mx.contiguous(self._conv_input[num_rows : num_rows + window])
            self.state = self._record.state_after(num_rows)
        # the record holds the whole pass; let it go
        self._conv_input = self._record = None

    @property
    def buffer_nbytes(self) -> int:
        return 0  # every pass makes its arrays anew

    def arrays(self) -> list[mx.array]:
        return [array for array in (self.state, self.conv_window) if array is not None]
