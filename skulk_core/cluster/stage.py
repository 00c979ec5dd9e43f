"""A rank that decides nothing: it commits what the header says, runs its layers and passes the rows on."""

from itertools import count

import mlx.core as mx

from skulk_core.cluster.header import FIRST_TOKEN, HEADER_SIZE, Flag, Header, unpacked
from skulk_core.cluster.links import Links
from skulk_core.decode.room import Room
from skulk_core.errors import RingError
from skulk_core.models.base import Activations, Target

# Windows between releases of MLX's buffer cache, as in the decoder: growing key buffers leave freed ones behind.
WINDOWS_BETWEEN_CLEARS = 256


class Stage:
    """Serves windows for ever; never looks at a logit."""

    def __init__(self, target: Target, links: Links, epoch: int, room: Room | None = None) -> None:
        assert links.rank < links.size - 1, "the last rank decides"
        self._target, self._links, self._epoch, self._room = target, links, epoch, room
        self._caches = target.make_caches()

    def serve(self) -> None:
        """One window after another. Raises `RingError`, `MemoryFull`, and `RuntimeError` where a neighbour was lost."""
        for number in count(1):
            self.serve_one()
            if number % WINDOWS_BETWEEN_CLEARS == 0:
                mx.clear_cache()

    def serve_one(self) -> None:
        """Wait for a window, run it, pass it on."""
        self._links.finish_sending()
        self._links.wait()
        message = self._links.receive((HEADER_SIZE,), mx.int32)
        # the one wait of a round: widths and commits are Python's
        mx.eval(message)
        values: list[int] = message.tolist()  # type: ignore[assignment]
        header = unpacked(values)
        self._check(header)
        tokens = message[FIRST_TOKEN : FIRST_TOKEN + header.width]
        if not header.has_tokens:
            tokens = self._links.receive((header.width,), mx.int32)
        if not self._hands_to_decider:
            # on its way before the rows are computed: the next rank commits meanwhile
            self._links.send(message)
            if not header.has_tokens:
                self._links.send(tokens)
        self._settle(header)
        self._links.send(self._run(header, tokens))

    @property
    def _hands_to_decider(self) -> bool:
        """The last rank made the header and needs no copy."""
        return bool(self._links.rank == self._links.size - 2)

    def _check(self, header: Header) -> None:
        if header.epoch != self._epoch:
            raise RingError(f"a window of epoch {header.epoch} came to a rank of epoch {self._epoch}")

    def _settle(self, header: Header) -> None:
        """What the decider kept of the window before."""
        if header.flags & Flag.NEW_TEXT:
            self._caches = self._target.make_caches()
            mx.clear_cache()
        elif self._caches.pending:
            self._caches.commit(header.committed)
        if self._caches.rows != header.position:
            raise RingError(f"a window at row {header.position} came to a rank that holds {self._caches.rows} rows")

    def _run(self, header: Header, tokens: mx.array) -> mx.array:
        """The rank's layers over the window's rows: what the next rank needs of them."""
        entering = self._entering(header, tokens)
        if header.flags & Flag.KEEP_ALL:
            return self._run_prompt(entering).astype(self._target.dtype)
        if self._room is not None:
            self._room.check(header.position, header.width)
        return self._target.run(entering, self._caches).h.astype(self._target.dtype)

    def _run_prompt(self, entering: Activations) -> mx.array:
        """Rows of a prompt, one part after the other where memory is left for no more."""
        num_rows = len(entering)
        most = num_rows if self._room is None else self._room.part_rows(entering.position, num_rows, num_rows)
        left = []
        for start in range(0, num_rows, most):
            part = entering if most == num_rows else entering.rows(start, min(start + most, num_rows))
            left.append(self._target.run_and_commit(part, self._caches).h)
            if most < num_rows:
                mx.eval(left[-1], *self._caches.arrays())
        return mx.concatenate(left) if len(left) > 1 else left[0]

    def _entering(self, header: Header, tokens: mx.array) -> Activations:
        if self._links.rank == 0:
            return self._target.embed(tokens, header.position)
        h = self._links.receive((header.width, self._target.hidden_size), self._target.dtype)
        return Activations(tokens, header.position, h)
