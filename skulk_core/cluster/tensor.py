"""Tensor parallel: every rank runs every layer with a share of its heads, and the shares are added up inside.

Rank 0 decides. It tells the others a window's tokens and what stays of the window before; drafts, verdicts and next
tokens are never worked out elsewhere. mlx-lm's `shard` cuts the layers; embedding, norm, LM head and draft head stay
whole, the last two on the decider alone.

A window is one message to all, then the sums inside the layers. Every rank runs the same passes in the same order,
told by the header alone, so all sums meet (`models/sharing.py`, `Links.add_up`).
"""

from itertools import count

import mlx.core as mx

from skulk_core.cluster.header import FIRST_TOKEN, HEADER_SIZE, Flag, Header, unpacked
from skulk_core.cluster.lap import Windows
from skulk_core.cluster.links import Links
from skulk_core.cluster.stage import WINDOWS_BETWEEN_CLEARS
from skulk_core.decode.exchange import Exchange
from skulk_core.decode.room import Room
from skulk_core.errors import RingError
from skulk_core.models.base import Activations, Target


class TensorExchange(Exchange):
    """The decider's: a window's header and tokens to every rank, then all run it together."""

    brings_rows = False

    def __init__(self, target: Target, links: Links, epoch: int) -> None:
        assert links.rank == 0, "the first rank decides"
        target.adder.add_up = links.add_up
        links.sleep_while_adding()
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
        width = int(tokens.shape[0])
        header = self._windows.header(rows_committed, width, position, keep_all=keep_all, last_row=last_row)
        self._links.broadcast(header.packed(tokens))
        if not header.has_tokens:
            self._links.broadcast(tokens)
        return self._target.embed(tokens, position)


class Follower:
    """Every other rank: runs what it is told, and never looks at a logit."""

    def __init__(self, target: Target, links: Links, epoch: int, room: Room | None = None) -> None:
        assert links.rank > 0, "the first rank decides"
        target.adder.add_up = links.add_up
        links.sleep_while_adding()
        self._target, self._links, self._epoch, self._room = target, links, epoch, room
        self._caches = target.make_caches()

    def serve(self) -> None:
        """One window after another. Raises `RingError`, `MemoryFull`, and `RuntimeError` where a rank was lost."""
        for number in count(1):
            mx.eval(self._run(*self._told()))
            if number % WINDOWS_BETWEEN_CLEARS == 0:
                mx.clear_cache()

    def _told(self) -> tuple[Header, mx.array]:
        """Wait for a window."""
        message = self._links.hear((HEADER_SIZE,), mx.int32)
        values: list[int] = message.tolist()  # type: ignore[assignment]
        header = unpacked(values)
        if header.epoch != self._epoch:
            raise RingError(f"a window of epoch {header.epoch} came to a rank of epoch {self._epoch}")
        if header.has_tokens:
            return header, message[FIRST_TOKEN : FIRST_TOKEN + header.width]
        return header, self._links.broadcast(mx.zeros((header.width,), mx.int32))

    def _run(self, header: Header, tokens: mx.array) -> mx.array:
        """The window's rows after every layer, which nobody reads: what counts is what was added up on the way."""
        if header.flags & Flag.NEW_TEXT:
            self._caches = self._target.make_caches()
            mx.clear_cache()
        elif self._caches.pending:
            self._caches.commit(header.committed)
        if self._caches.rows != header.position:
            raise RingError(f"a window at row {header.position} came to a rank that holds {self._caches.rows} rows")
        if self._room is not None:
            # whole or not at all: other ranks add up the same passes
            self._room.check(header.position, header.width)
        entering = self._target.embed(tokens, header.position)
        if header.flags & Flag.KEEP_ALL:
            last_row = bool(header.flags & Flag.LAST_ROW)
            return self._target.run_and_commit(entering, self._caches, last_row=last_row).h
        return self._target.run(entering, self._caches).h
