"""What a layer remembers between passes, with the right to change its mind.

A pass feeds ``w`` rows to every cache; then `commit(n)` keeps the first ``n`` exactly as if only they had been fed.
No commit runs a layer's weights again. Caches of attention may be fed several times before a commit (a head drafts
row by row); a recurrent one takes one pass at a time.
"""

import abc
from collections.abc import Iterator, Sequence
from typing import Self

import mlx.core as mx


class LayerCache(abc.ABC):
    """One layer's memory. `rows` counts the committed rows, `pending` those fed and not yet committed."""

    def __init__(self) -> None:
        self.rows = 0
        self.pending = 0

    def commit(self, num_rows: int) -> None:
        """Keep the first ``num_rows`` of the pending rows; the others were never fed."""
        assert 0 <= num_rows <= self.pending, f"commit {num_rows} of {self.pending} pending rows"
        self.commit_all([self], num_rows)

    @classmethod
    def commit_all(cls, caches: Sequence[Self], num_rows: int) -> None:
        """`commit` on caches of this kind that were fed the same pass, in as few operations as the kind allows."""
        cls._keep_all(caches, num_rows)
        for cache in caches:
            cache.rows += num_rows
            cache.pending = 0

    @property
    def mask_key(self) -> object:
        """Caches with equal keys use one mask in a pass."""
        return type(self)

    def mask(self, num_rows: int) -> mx.array | str | None:
        """Mask for a pass of ``num_rows`` as `scaled_dot_product_attention` takes it; None where nothing is masked."""
        return None

    def _fed(self, num_rows: int) -> None:
        """Note that ``num_rows`` more rows were fed."""
        self.pending += num_rows

    @classmethod
    def _keep_all(cls, caches: Sequence[Self], num_rows: int) -> None:
        """Undo all but the first ``num_rows`` pending rows of each."""
        for cache in caches:
            cache._keep(num_rows)

    @abc.abstractmethod
    def _keep(self, num_rows: int) -> None:
        """Undo all but the first ``num_rows`` pending rows."""

    @abc.abstractmethod
    def arrays(self) -> list[mx.array]:
        """The arrays that hold this cache's contents, to evaluate or to count."""

    @property
    def nbytes(self) -> int:
        """Bytes held, spare room included."""
        return sum(array.nbytes for array in self.arrays())

    @property
    def buffer_nbytes(self) -> int:
        """Bytes of buffers written in place, which MLX copies whole while an unfinished pass still reads them."""
        return self.nbytes


class CacheList(Sequence[LayerCache]):
    """The caches of a range of layers: they commit all or none."""

    def __init__(self, layers: Sequence[LayerCache]) -> None:
        assert layers, "no layers"
        self._layers = tuple(layers)
        self._by_kind: dict[type[LayerCache], list[LayerCache]] = {}
        for layer in self._layers:
            self._by_kind.setdefault(type(layer), []).append(layer)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[LayerCache]:
        return iter(self._layers)

    @property
    def rows(self) -> int:
        """Committed rows, the same in every layer."""
        return self._layers[0].rows

    @property
    def pending(self) -> int:
        """Rows fed and not yet committed, the same in every layer."""
        return self._layers[0].pending

    def commit(self, num_rows: int) -> None:
        """Keep the first ``num_rows`` pending rows in every layer."""
        assert all(layer.pending == self.pending for layer in self._layers), "layers were fed different passes"
        assert 0 <= num_rows <= self.pending, f"commit {num_rows} of {self.pending} pending rows"
        for kind, layers in self._by_kind.items():
            kind.commit_all(layers, num_rows)

    def arrays(self) -> list[mx.array]:
        """The arrays of all layers."""
        return [array for layer in self._layers for array in layer.arrays()]

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self._layers)

    @property
    def buffer_nbytes(self) -> int:
        """Bytes of buffers written in place, of all layers."""
        return sum(layer.buffer_nbytes for layer in self._layers)
