"""Bytes that a pass adds to what a rank holds already: caches that grow, and what the pass itself has alive."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from skulk_core.memory.caches import CacheShape, WorkingShape


@dataclass(frozen=True)
class PassBytes:
    """A rank's passes. `caches` are the different shapes with how many layers have each.

    `shares`: among how many ranks every layer is divided.
    """

    caches: tuple[tuple[CacheShape, int], ...]
    working: WorkingShape
    item_nbytes: int
    decides: bool
    shares: int = 1

    def nbytes(self, rows: int, width: int) -> int:
        """Bytes that feeding ``width`` rows after ``rows`` takes, at its height."""
        return self.grown_nbytes(rows, width) + self.working_nbytes(rows, width, logit_rows=width)

    def grown_nbytes(self, rows: int, width: int) -> int:
        """Bytes by which the caches grow; a buffer that does is copied while the old one is still there."""
        grown = copied = 0
        for shape, number in self.caches:
            before = shape.nbytes(rows, self.item_nbytes) if rows else 0
            more = shape.nbytes(rows + width, self.item_nbytes) - before
            if more > 0:
                grown += number * more
                copied = max(copied, before)
        return (grown + copied) // self.shares

    def working_nbytes(self, rows: int, width: int, *, logit_rows: int) -> int:
        """Bytes that a pass over ``width`` rows after ``rows`` has alive besides caches and weights.

        ``logit_rows`` of them become logits where tokens are decided: all of a window, one of a prompt.
        """
        return self.working.pass_nbytes(
            width, rows + width, self.item_nbytes, logit_rows=logit_rows if self.decides else 0
        )


def counted(shapes: Iterable[CacheShape]) -> tuple[tuple[CacheShape, int], ...]:
    """Shapes of layers, each with how often it is there."""
    return tuple(Counter(shapes).items())
