"""A head that keeps up with the text: every committed pair reaches it once and in order, when it is needed."""

import mlx.core as mx

from skulk_core.cache.base import CacheList
from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Hidden
from skulk_core.sampling.base import Draft, Place, Sampler

# Pairs of plain rounds that are kept for the head before it must read them: together they cost little more than one.
_MOST_PAIRS = 512


class Follower:
    """Feeds one head. While nothing is drafted it collects pairs, so that plain rounds cost what they cost without."""

    def __init__(self, head: DraftHead) -> None:
        self._head = head
        self._waiting: list[tuple[Hidden, mx.array]] = []

    def reset(self, caches: CacheList) -> None:
        """A new text begins, which the target will keep in ``caches``."""
        self._head.read_from(caches)
        self._head.reset()
        self._waiting.clear()

    def ingest(self, hidden: Hidden, next_tokens: mx.array) -> None:
        """Pairs of a prompt."""
        self._catch_up()
        self._head.ingest(hidden, next_tokens)

    def keep(self, hidden: Hidden, next_tokens: mx.array) -> None:
        """Committed pairs of a round that drafted nothing."""
        self._waiting.append((self._head.tapped(hidden), next_tokens))
        if len(self._waiting) >= _MOST_PAIRS:
            self._catch_up()
            mx.async_eval(*self._head.arrays())

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        """As the head's own, after everything committed."""
        self._catch_up()
        return self._head.draft(depth, sampler, place)

    def observe(self, hidden: Hidden, next_tokens: mx.array) -> None:
        """Pairs of a verify pass; a `commit` follows."""
        self._head.observe(hidden, next_tokens)

    def commit(self, num_rows: int) -> None:
        """Keep the first pairs of those observed."""
        self._head.commit(num_rows)

    def arrays(self) -> list[mx.array]:
        """The head's arrays."""
        return self._head.arrays()

    def _catch_up(self) -> None:
        if not self._waiting:
            return
        pairs, self._waiting = self._waiting, []
        if len(pairs) == 1:
            self._head.ingest(*pairs[0])
            return
        pre, post = [hidden.pre_norm for hidden, _ in pairs], [hidden.post_norm for hidden, _ in pairs]
        post_norm = mx.concatenate(post)
        same = all(one is other for one, other in zip(pre, post, strict=True))
        hidden = Hidden(post_norm if same else mx.concatenate(pre), post_norm)
        self._head.ingest(hidden, mx.concatenate([tokens for _, tokens in pairs]))
