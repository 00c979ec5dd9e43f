"""Memory of recurrent layers: a state matrix and the window of a short convolution, both able to keep a prefix.

A gated delta or Mamba-2 (SSD) layer writes one outer product per row: ``S_t = g_t S_{t-1} + d_t k_t^T``. A pass
records the writes, so the state after its first ``n`` rows is one product, ``G_n S_0 + sum (G_n / G_i) d_i k_i^T``:
no weights, no recurrence, no replay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import mlx.core as mx

from skulk_core.cache.base import LayerCache


class PassRecord(Protocol):
    """What a pass leaves behind so that its cache can keep any prefix of it."""

    def state_after(self, num_rows: int) -> mx.array:
        """State after the first ``num_rows`` rows, at least one."""
        ...

    def known_state_after(self, num_rows: int) -> mx.array | None:
        """The same where the pass has worked it out; else None."""
        ...

    def all_writes(self) -> "OuterProductWrites":
        """The writes from which the state after any prefix follows."""
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
    def concatenate(records: Sequence["OuterProductWrites"], state: mx.array | None = None) -> "OuterProductWrites":
        """One record of passes over different heads (the first axis) and the same rows.

        ``state`` is given where the records' states are the parts of an array that is still there. The result has a
        ``final`` if all of them have one.
        """

        def joined(name: str) -> mx.array:
            return mx.concatenate([getattr(record, name) for record in records])

        final = joined("final") if all(record.final is not None for record in records) else None
        before = joined("state") if state is None else state
        return OuterProductWrites(before, joined("log_decay"), joined("writes"), joined("keys"), final)

    def known_state_after(self, num_rows: int) -> mx.array | None:
        return self.final if num_rows == self.log_decay.shape[-1] else None

    def all_writes(self) -> "OuterProductWrites":
        return self

    def state_after(self, num_rows: int) -> mx.array:
        if (known := self.known_state_after(num_rows)) is not None:
            return known
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

    def known_state_after(self, num_rows: int) -> mx.array | None:
        return self.final if num_rows == self.num_rows else None

    def all_writes(self) -> OuterProductWrites:
        return self.writes()

    def state_after(self, num_rows: int) -> mx.array:
        return self.final if num_rows == self.num_rows else self.writes().state_after(num_rows)


@dataclass(frozen=True)
class _Joint:
    """The states of several layers in one array, and the views of it that are theirs."""

    whole: mx.array
    parts: tuple[mx.array, ...]


class RecurrentCache(LayerCache):
    """State and convolution window of one recurrent layer. Both are None until the first commit: zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.state: mx.array | None = None
        self.conv_window: mx.array | None = None
        self._conv_input: mx.array | None = None
        self._record: PassRecord | None = None
        # shared by the layers whose states were last worked out together
        self._joint: _Joint | None = None

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

    @classmethod
    def _keep_all(cls, caches: Sequence[Self], num_rows: int) -> None:
        # layers of one shape are rebuilt together: a pass has dozens, and each operation has a price of its own
        for alike in _by_shape(caches) if num_rows else ():
            _set_all(alike, num_rows)
        for cache in caches:
            # the record holds the whole pass; let it go
            cache._conv_input = cache._record = None

    def _keep(self, num_rows: int) -> None:
        self._keep_all([self], num_rows)

    def _window_after(self, num_rows: int) -> mx.array:
        assert self._conv_input is not None
        assert self.conv_window is not None
        return self._conv_input[num_rows : num_rows + self.conv_window.shape[0]]

    @property
    def buffer_nbytes(self) -> int:
        return 0  # every pass makes its arrays anew

    def arrays(self) -> list[mx.array]:
        return [array for array in (self.state, self.conv_window) if array is not None]


def _by_shape(caches: Sequence[RecurrentCache]) -> list[list[RecurrentCache]]:
    """The caches in groups whose passes have arrays of the same shapes."""
    groups: dict[object, list[RecurrentCache]] = {}
    for cache in caches:
        assert cache._conv_input is not None
        state = None if cache.state is None else tuple(cache.state.shape)
        groups.setdefault((type(cache._record), tuple(cache._conv_input.shape), state), []).append(cache)
    return list(groups.values())


def _set_all(caches: Sequence[RecurrentCache], num_rows: int) -> None:
    """States and windows after ``num_rows`` rows: in one go where the states must be worked out."""
    known = [cache._record.known_state_after(num_rows) for cache in caches if cache._record is not None]
    windows = [cache._window_after(num_rows) for cache in caches]
    if len(caches) == 1 or all(state is not None for state in known):
        # one by one: another part of the text may be waiting for the first of them
        for cache, window in zip(caches, windows, strict=True):
            assert cache._record is not None
            # copied, or it would keep the whole pass alive
            cache.conv_window, cache._joint = mx.contiguous(window), None
            cache.state = cache._record.state_after(num_rows)
        return
    joint = _joint_after(caches, num_rows)
    for cache, part, window in zip(caches, joint.parts, mx.split(mx.concatenate(windows), len(windows)), strict=True):
        cache.state, cache.conv_window, cache._joint = part, window, joint


def _joint_after(caches: Sequence[RecurrentCache], num_rows: int) -> _Joint:
    writes = [cache._record.all_writes() for cache in caches if cache._record is not None]
    before = caches[0]._joint
    still_there = (
        before is not None
        and len(before.parts) == len(writes)
        and all(record.state is part for record, part in zip(writes, before.parts, strict=True))
    )
    joined = OuterProductWrites.concatenate(writes, before.whole if before is not None and still_there else None)
    whole = joined.state_after(num_rows)
    return _Joint(whole, tuple(mx.split(whole, len(writes))))
