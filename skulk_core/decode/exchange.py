"""What the loop asks of the other hosts: one lap of a window of rows. Alone there is nobody to ask."""

from collections.abc import Generator
from typing import Protocol

import mlx.core as mx

from skulk_core.models.base import Activations, Target


class Exchange(Protocol):
    """Carries a window to this host's first layer.

    Every window says how many rows of the one before it were committed, so the other hosts need no word of their own.
    ``brings_rows``: whether they come from other hosts' layers, which are done with them then.
    """

    brings_rows: bool

    def begin(self) -> None:
        """The next window begins a new text: every host's caches are empty before it."""
        ...

    def lap(
        self,
        rows_committed: int,
        tokens: mx.array,
        position: int,
        *,
        keep_all: bool = False,
        last_row: bool = False,
    ) -> Activations:
        """Rows ``tokens`` ``[w]``, the first at ``position``, as they enter this host's layers.

        With ``keep_all``, as in a prompt, every row stays, which the other hosts need not wait to hear. ``last_row``
        as for `Target.run_and_commit`, which is to follow with the same: hosts that share the last layer run it alike.
        """
        ...

    @property
    def runs_ahead(self) -> bool:
        """Whether other hosts may hold more of a prompt than came here: where it is left, a new text must begin."""
        return False

    def prompt(
        self, rows_committed: int, tokens: mx.array, position: int, most_rows: int, *, last_row: bool
    ) -> Generator[Activations, None, None]:
        """A prompt's rows in parts of at most ``most_rows``: the laps of all parts, as `lap` with ``keep_all``.

        A part is to be run here before the next is asked for.
        """
        for start in range(0, tokens.shape[0], most_rows):
            part = tokens[start : start + most_rows]
            yield self.lap(rows_committed, part, position + start, keep_all=True, last_row=last_row)
            rows_committed = int(part.shape[0])


class Alone(Exchange):
    """One host holds every layer."""

    brings_rows = False

    def __init__(self, target: Target) -> None:
        self._target = target

    def begin(self) -> None:
        return

    def lap(
        self,
        rows_committed: int,
        tokens: mx.array,
        position: int,
        *,
        keep_all: bool = False,
        last_row: bool = False,
    ) -> Activations:
        return self._target.embed(tokens, position)
