"""Bytes of the caches that layers keep for a context."""

from dataclasses import dataclass

# The caches grow by so many rows at a time.
STEP_ROWS = 256


@dataclass(frozen=True)
class CacheShape:
    """One layer's cache: `per_row` numbers for every row of the text, and `fixed_nbytes` whatever its length.

    `most_rows` limits the rows where a window does; None where every row is kept.
    """

    per_row: int = 0
    fixed_nbytes: int = 0
    most_rows: int | None = None

    def nbytes(self, context: int, item_nbytes: int) -> int:
        """Bytes once ``context`` rows were fed, with numbers of ``item_nbytes``."""
        rows = -(-context // STEP_ROWS) * STEP_ROWS
        if self.most_rows is not None:
            # a window's buffer has so many spare rows behind what it was fed
            rows = min(context + STEP_ROWS, self.most_rows)
        return self.fixed_nbytes + self.per_row * rows * item_nbytes


@dataclass(frozen=True)
class WorkingShape:
    """What a pass holds besides weights and caches, by numbers of the configuration.

    `row` numbers are alive at once for every row of a pass; `scores` for every pair of a query row in a block and a
    row of the text, where attention's scores are written out.
    """

    row: int
    vocab: int
    heads: int
    prefill_rows: int
    block_rows: int = 0

    def nbytes(self, context: int, item_nbytes: int, *, decides: bool) -> int:
        """Bytes of a pass over a full prompt chunk; a deciding rank also has logits of a window's rows."""
        rows = min(context, self.prefill_rows)
        return self.pass_nbytes(rows, context, item_nbytes, logit_rows=_WINDOW_ROWS if decides else 0)

    def pass_nbytes(self, rows: int, context: int, item_nbytes: int, *, logit_rows: int) -> int:
        """Bytes of a pass over ``rows`` that see ``context`` rows with their own, of which some become logits."""
        # scores and their exponentials, in float32
        scores = 2 * self.heads * min(rows, self.block_rows) * context * 4
        return rows * self.row * item_nbytes + scores + logit_rows * self.vocab * 4 * 2


_WINDOW_ROWS = 16
