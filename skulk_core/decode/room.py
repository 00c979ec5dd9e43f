"""Whether the next pass of a text fits in memory; what does not is refused before it is run."""

from skulk_core.errors import MemoryFull
from skulk_core.memory.passes import PassBytes
from skulk_core.runtime.memory_limit import MemoryLimit

# Smaller parts of a prompt save nothing worth their passes.
_LEAST_PART_ROWS = 16


class Room:
    """What is left for a rank's passes. MLX's freed buffers are let go before anything is refused."""

    def __init__(self, passes: PassBytes, limit: MemoryLimit) -> None:
        self._passes, self._limit = passes, limit

    def has(self, rows: int, width: int, *, also_nbytes: int = 0) -> bool:
        """Whether a pass over ``width`` rows after ``rows`` fits, and ``also_nbytes`` with it."""
        return not self._limit.short_nbytes(self._passes.nbytes(rows, width) + also_nbytes)

    def check(self, rows: int, width: int) -> None:
        """Raise `MemoryFull` if a pass over ``width`` rows after ``rows`` does not fit."""
        self._refuse(self._passes.nbytes(rows, width))

    def has_text(self, rows: int) -> bool:
        """Whether fresh caches of ``rows`` rows fit, and a pass at their end with them."""
        return not self._limit.short_nbytes(self._text_nbytes(rows))

    def check_text(self, rows: int) -> None:
        """Raise `MemoryFull` unless `has_text`."""
        self._refuse(self._text_nbytes(rows))

    def _text_nbytes(self, rows: int) -> int:
        return self._passes.nbytes(0, 1) + self._passes.grown_nbytes(0, rows)

    def part_rows(self, rows: int, num_rows: int, most: int) -> int:
        """How many of ``num_rows`` rows of a prompt, after ``rows``, may be fed at once: ``most``, or as few as fit.

        Raises `MemoryFull`.
        """
        grown = self._passes.grown_nbytes(rows, num_rows)
        width = min(most, num_rows)
        while True:
            needed = grown + self._passes.working_nbytes(rows + num_rows - width, width, logit_rows=1)
            short = self._limit.short_nbytes(needed)
            if not short:
                return width
            if width <= _LEAST_PART_ROWS:
                raise MemoryFull(needed, max(0, needed - short))
            width = max(width // 2, _LEAST_PART_ROWS)

    def _refuse(self, needed_nbytes: int) -> None:
        short = self._limit.short_nbytes(needed_nbytes)
        if short:
            raise MemoryFull(needed_nbytes, max(0, needed_nbytes - short))
