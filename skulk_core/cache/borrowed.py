"""The cache of a layer that attends to an earlier layer's keys and values and has none of its own."""

import mlx.core as mx

from skulk_core.cache.base import LayerCache


class BorrowedCache(LayerCache):
    """Counts the rows that its layer was run over, and holds nothing.

    What the layer reads in a pass is what the lender's update of that very pass returned: handed on within the pass,
    not fetched from the lender's cache, which may be one part of a prompt ahead by then.
    """

    def __init__(self, lender: LayerCache) -> None:
        super().__init__()
        assert not isinstance(lender, BorrowedCache), "only layers with keys and values can lend them"
        self.lender = lender

    @property
    def mask_key(self) -> object:
        return self.lender.mask_key

    def mask(self, num_rows: int) -> mx.array | str | None:
        """None of its own: the lender ran before in every pass, and its mask is remembered under `mask_key`."""
        raise AssertionError("a layer that borrows was run before its lender")

    def feed(self, num_rows: int) -> None:
        """Note a pass of ``num_rows``."""
        self._fed(num_rows)

    def _keep(self, num_rows: int) -> None:
        return

    def arrays(self) -> list[mx.array]:
        return []
