"""The decider's exchange: one lap of the ring a window."""

import mlx.core as mx

from skulk_core.cluster.header import Flag, Header
from skulk_core.cluster.links import Links
from skulk_core.decode.exchange import Exchange
from skulk_core.models.base import Activations, Target


class Windows:
    """Numbers the windows of an epoch and makes their headers."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._text = self._round = self._window = 0
        self._is_new = True

    def begin(self) -> None:
        """The next window is a new text's first."""
        self._is_new = True

    def header(
        self, rows_committed: int, width: int, position: int, *, keep_all: bool, last_row: bool = False
    ) -> Header:
        """The header of the next window."""
        flags = Flag.KEEP_ALL if keep_all else Flag(0)
        if last_row:
            flags |= Flag.LAST_ROW
        if self._is_new:
            flags |= Flag.NEW_TEXT
            self._is_new, self._round, self._text = False, 0, self._text + 1
        self._round += 1
        self._window += 1
        return Header(
            epoch=self._epoch,
            text=self._text,
            round=self._round,
            flags=flags,
            committed=rows_committed,
            width=width,
            position=position,
            window=self._window,
            base=self._window - 1,
        )


class RingExchange(Exchange):
    """Sends a window to rank 0 and hands back the rows that the rank before this one makes of it.

    Commit counts ride with the next window: no rank is told a verdict, and nothing is waited for here.
    """

    brings_rows = True

    def __init__(self, target: Target, links: Links, epoch: int) -> None:
        assert links.rank == links.size - 1, "only the last rank decides"
        self._target, self._links, self._windows = target, links, Windows(epoch)

    def begin(self) -> None:
        self._windows.begin()

    def lap(
        self,
        rows_committed: int,
        tokens: mx.array,
        position: int,
        *,
        keep_all: bool = False,
        last_row: bool = False,
    ) -> Activations:
        # the last layer is here: nobody else need know how many of its rows are wanted
        width = int(tokens.shape[0])
        header = self._windows.header(rows_committed, width, position, keep_all=keep_all)
        self._links.send(header.packed(tokens))
        if not header.has_tokens:
            self._links.send(tokens)
        h = self._links.receive((width, self._target.hidden_size), self._target.dtype)
        return Activations(tokens, position, h)
