"""The contract of a draft head: whatever proposes the next tokens from what the target has decided."""

import abc

import mlx.core as mx

from skulk_core.cache.base import CacheList
from skulk_core.models.base import Hidden
from skulk_core.sampling.base import Draft, Place, Sampler


class DraftHead(abc.ABC):
    """Reads committed pairs ``(hidden row, the token chosen from it)`` and drafts what follows.

    Every committed pair is read once and in order, the whole prompt included; `draft` continues from the last
    committed pair, and what it fed to itself is gone afterwards.
    """

    def tapped(self, hidden: Hidden) -> Hidden:
        """Of trunk rows what this head reads; in place of the rest anything of the same length.

        Rows may be kept for it through many rounds, and a device reuses the memory of those that are not.
        """
        return hidden

    @abc.abstractmethod
    def ingest(self, hidden: Hidden, next_tokens: mx.array) -> None:
        """Read ``T`` committed pairs of a prompt: trunk rows and the tokens ``[T]`` that came after them.

        The target's caches may not have committed these rows yet; by the next `draft` they have.
        """

    @abc.abstractmethod
    def observe(self, hidden: Hidden, next_tokens: mx.array) -> None:
        """Read the ``w`` pairs of a verify pass before it is known how many of them hold; a `commit` follows.

        So a device reads them while the verdict is on its way.
        """

    @abc.abstractmethod
    def commit(self, num_rows: int) -> None:
        """Keep the first ``num_rows`` of the pairs observed; the others never were."""

    @abc.abstractmethod
    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        """At most ``depth`` (>= 1) tokens after the last committed pair."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget every pair: a new text begins."""

    @property
    def always_drafts(self) -> "DraftHead":
        """A drafter of the same cost that drafts as many tokens as it is asked for, whatever they are worth.

        For measuring what rounds cost. Itself for most; it stands in for one that may have nothing to offer.
        """
        return self

    def read_from(self, caches: CacheList) -> None:
        """The caches of this host's layers for the text to come, before it begins.

        For a head that reads the target's own keys and values, of rows that are committed; most have theirs.
        """
        return

    @abc.abstractmethod
    def arrays(self) -> list[mx.array]:
        """The arrays that hold what was read, to evaluate or to count."""


class WiredHead(DraftHead):
    """A head with weights of its own, whose `Conventions` can be measured on a text that is known."""

    @abc.abstractmethod
    def forced(self, tokens: mx.array, hidden: Hidden, depth: int) -> list[mx.array]:
        """Greedy drafts after each of ``T`` pairs of a text, had every draft before been right.

        ``tokens`` ``[T + 1]`` are the text from its beginning, ``hidden`` the trunk's rows of all but the last. The
        array at ``i`` ``[T - i]`` holds what is drafted at position ``i + 1`` after each pair, with the tokens that
        came in place of the ``i`` drafts before it. All pairs at once; nothing is evaluated, and nothing remembered.
        """
