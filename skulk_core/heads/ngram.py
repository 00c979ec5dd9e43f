"""Prompt lookup: drafts what followed the last tokens when they stood in the text before (Saxena 2023).

A head without weights, for every model. Its drafts are not drawn from a distribution, so a sampler that draws judges
each as if it had had all the mass.
"""

import mlx.core as mx

from skulk_core.heads.base import DraftHead
from skulk_core.models.base import Hidden
from skulk_core.sampling.base import Draft, Place, Sampler

# The last so many tokens are looked up, the longest run first; a single token says too little.
_LONGEST, _SHORTEST = 4, 2


class NgramHead(DraftHead):
    """Remembers where every short run of tokens was last followed by something."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._tokens: list[int] = []
        # a run of tokens -> the index after its last occurrence but the one at the very end
        self._after: dict[tuple[int, ...], int] = {}
        self._observed: mx.array | None = None

    def ingest(self, hidden: Hidden, next_tokens: mx.array) -> None:
        self._append(next_tokens)

    def observe(self, hidden: Hidden, next_tokens: mx.array) -> None:
        # read when it is known how many hold: by then the tokens are there without a wait of their own
        self._observed = next_tokens

    def commit(self, num_rows: int) -> None:
        assert self._observed is not None, "nothing observed"
        self._append(self._observed, num_rows)
        self._observed = None

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        """At most ``depth`` tokens; none where the last tokens never stood in the text before."""
        found: list[int] = []
        for length in range(min(_LONGEST, len(self._tokens)), _SHORTEST - 1, -1):
            after = self._after.get(tuple(self._tokens[-length:]))
            if after is not None:
                found = self._tokens[after : after + depth]
                break
        return Draft(mx.array(found, mx.int32))

    @property
    def always_drafts(self) -> DraftHead:
        return _Repeats()

    def arrays(self) -> list[mx.array]:
        return []

    def _append(self, tokens: mx.array, num_rows: int | None = None) -> None:
        # cut on the host: a slice would be an operation, and a wait of its own
        values: list[int] = tokens.tolist()  # type: ignore[assignment]
        for token in values[:num_rows]:
            # the run that ended here is now followed by something
            for length in range(_SHORTEST, min(_LONGEST, len(self._tokens)) + 1):
                self._after[tuple(self._tokens[-length:])] = len(self._tokens)
            self._tokens.append(token)


class _Repeats(NgramHead):
    """Drafts the last token again and again: a look-up costs next to nothing, and what it finds is verified alike."""

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        return Draft(mx.array(self._tokens[-1:] * depth, mx.int32))
