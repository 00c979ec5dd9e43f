"""What the loop asks of the other hosts: one lap of a window of rows. Alone there is nobody to ask."""

from typing import Protocol

import mlx.core as mx

from skulk_core.models.base import Activations, Target


class Exchange(Protocol):
    """Carries a window to this host's first layer.

    Every window says how many rows of the one before it were committed, so the other hosts need no word of their own.
    """

    def lap(self, rows_committed: int, tokens: mx.array, position: int) -> Activations:
        """Rows ``tokens`` ``[w]``, the first at ``position``, as they enter this host's layers."""
        ...


class Alone(Exchange):
    """One host holds every layer."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def lap(self, rows_committed: int, tokens: mx.array, position: int) -> Activations:
        return self._target.embed(tokens, position)
