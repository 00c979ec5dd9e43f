"""The contract of a draft head: whatever proposes the next tokens from what the target has decided."""

import abc

import mlx.core as mx

from skulk_core.models.base import Hidden
from skulk_core.sampling.base import Draft, Sampler


class DraftHead(abc.ABC):
    """Reads committed pairs ``(hidden row, the token chosen from it)`` and drafts what follows.

    Every committed pair is observed once and in order, the whole prompt included; `draft` continues from the last
    observed pair, and what it fed to itself is gone afterwards.
    """

    @abc.abstractmethod
    def observe(self, hidden: Hidden, next_tokens: mx.array) -> None:
        """Ingest ``T`` committed pairs: trunk rows and the tokens ``[T]`` that came after them.

        The target's caches may not have committed these rows yet; by the next `draft` they have.
        """

    @abc.abstractmethod
    def draft(self, depth: int, sampler: Sampler) -> Draft:
        """At most ``depth`` (>= 1) tokens after the last observed pair."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget every pair: a new text begins."""

    @abc.abstractmethod
    def arrays(self) -> list[mx.array]:
        """The arrays that hold what was observed, to evaluate or to count."""
