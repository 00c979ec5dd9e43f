"""The decider's exchange: one lap of the ring a window."""

from collections import deque
from collections.abc import Generator

import mlx.core as mx

from skulk_core.cluster.header import Flag, Header
from skulk_core.cluster.links import Links
from skulk_core.decode.exchange import Exchange
from skulk_core.models.base import Activations, Target

# Parts of a prompt: so many that filling and emptying the ring costs little, but not so small that passes are wasted.
_PARTS_PER_RANK, _LEAST_PART_ROWS = 4, 128


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

    Commit counts ride with the next window: no rank is told a verdict, and nothing is waited for here. A prompt's
    windows need no verdict at all: some are sent ahead, so that every rank works on a part of its own.
    """

    brings_rows = True

    def __init__(self, target: Target, links: Links, epoch: int) -> None:
        assert links.rank == links.size - 1, "only the last rank decides"
        self._target, self._links, self._windows = target, links, Windows(epoch)
        self._ahead: deque[int] = deque()  # widths of windows whose rows have not been taken

    def begin(self) -> None:
        # rows of a prompt that was left: they come whether anybody wants them or not
        while self._ahead:
            self._receive(self._ahead.popleft())
        self._windows.begin()

    @property
    def runs_ahead(self) -> bool:
        return True

    def prompt(
        self, rows_committed: int, tokens: mx.array, position: int, most_rows: int, *, last_row: bool
    ) -> Generator[Activations, None, None]:
        num_rows = int(tokens.shape[0])
        width = min(most_rows, max(_LEAST_PART_ROWS, -(-num_rows // (_PARTS_PER_RANK * self._links.size))))
        parts = [(start, min(start + width, num_rows)) for start in range(0, num_rows, width)]
        sent = 0
        for number, (start, end) in enumerate(parts):
            # each rank has one at hand while this one computes
            for ahead_start, ahead_end in parts[sent : number + self._links.size]:
                self._send(rows_committed, tokens[ahead_start:ahead_end], position + ahead_start, keep_all=True)
                rows_committed = ahead_end - ahead_start
                self._ahead.append(rows_committed)
                sent += 1
            yield Activations(tokens[start:end], position + start, self._receive(self._ahead.popleft()))

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
        assert not self._ahead, "a prompt was left without a new text"
        self._send(rows_committed, tokens, position, keep_all=keep_all)
        return Activations(tokens, position, self._receive(int(tokens.shape[0])))

    def _send(self, rows_committed: int, tokens: mx.array, position: int, *, keep_all: bool) -> None:
        header = self._windows.header(rows_committed, int(tokens.shape[0]), position, keep_all=keep_all)
        self._links.send(header.packed(tokens))
        if not header.has_tokens:
            self._links.send(tokens)

    def _receive(self, width: int) -> mx.array:
        return self._links.receive((width, self._target.hidden_size), self._target.dtype)
