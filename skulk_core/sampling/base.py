"""From logits to tokens: what is drafted, and how much of a draft the target accepts."""

import abc
from dataclasses import dataclass

import mlx.core as mx


@dataclass(frozen=True)
class Draft:
    """``d`` drafted tokens ``[d]``, and the distributions ``[d, V]`` they were drawn from.

    ``probs`` is None for a greedy draft: each token had all the mass.
    """

    tokens: mx.array
    probs: mx.array | None = None

    @property
    def depth(self) -> int:
        """``d``."""
        return int(self.tokens.shape[0])


@dataclass(frozen=True)
class Acceptance:
    """The verdict on a pass of ``w = d + 1`` rows, not yet evaluated.

    ``num_accepted`` ``[]``: drafts accepted, ``n``. ``tokens`` ``[w]``: the first ``n`` are the accepted drafts, the
    one after them is the target's own; what follows means nothing.
    """

    num_accepted: mx.array
    tokens: mx.array


class Sampler(abc.ABC):
    """One way of choosing tokens, used for target and draft alike. Pure: no caches, no model."""

    @abc.abstractmethod
    def choose(self, logits: mx.array) -> mx.array:
        """Tokens ``[T]`` for logits ``[T, V]`` where nothing was drafted."""

    @abc.abstractmethod
    def draft(self, logits: mx.array) -> tuple[mx.array, mx.array | None]:
        """A drafted token ``[1]`` for logits ``[1, V]`` and its distribution ``[1, V]`` (None: greedy)."""

    @abc.abstractmethod
    def accept(self, logits: mx.array, draft: Draft) -> Acceptance:
        """The verdict of the target's logits ``[d + 1, V]`` on ``draft``."""
