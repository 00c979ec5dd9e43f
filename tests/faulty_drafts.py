"""Drafts of a text that is known, wrong from a place on that changes from round to round."""

import random
from collections.abc import Sequence

import mlx.core as mx

from skulk_core.heads.ngram import NgramHead
from skulk_core.sampling.base import Draft, Place, Sampler


class FaultyDrafts(NgramHead):
    """Right up to a place from none to all of a round's drafts, so that a round takes back none, some and all of them.

    ``plain`` is the answer by plain decoding to a prompt of ``num_prompt`` tokens.
    """

    def __init__(self, plain: Sequence[int], num_prompt: int) -> None:
        super().__init__()
        self._plain, self._num_prompt = list(plain), num_prompt

    def draft(self, depth: int, sampler: Sampler, place: Place) -> Draft:
        at = len(self._tokens)
        drafted = self._plain[at - self._num_prompt + 1 :][:depth]
        wrong = random.Random(at).randint(0, depth)
        # downwards, and 0 to 1: a token that the vocabulary lacks would be read from memory of something else
        return Draft(mx.array([abs(token - (index >= wrong)) for index, token in enumerate(drafted)], mx.int32))
