"""Temperature 0: the most likely token, always."""

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx

from skulk_core.sampling.base import Acceptance, Draft, Place, Sampler
from skulk_core.sampling.processors import Processors
from skulk_core.sampling.settings import SamplingSettings


class GreedySampler(Sampler):
    """Argmax of the processed logits; a draft is accepted while it equals the target's argmax.

    With ``gaps`` every verdict says by how much each row was decided.
    """

    def __init__(self, settings: SamplingSettings | None = None, *, gaps: bool = False) -> None:
        self._gaps = gaps
        self._settings = settings or SamplingSettings()
        assert self._settings.is_greedy, "a temperature above 0"
        self._processors = Processors(self._settings)

    def start(self, prompt: Sequence[int], vocab_size: int) -> Place:
        return self._processors.start(prompt, vocab_size)

    def choose(self, logits: mx.array, place: Place) -> mx.array:
        return mx.argmax(self._processors(logits, place), axis=-1)

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        if not self._processors.do_nothing and drafted:
            place = place.after(mx.concatenate(list(drafted)))
        return self.choose(logits, place), None

    def accept(self, logits: mx.array, draft: Draft, place: Place) -> Acceptance:
        logits = self._processors(logits, place, draft.tokens)
        verdict = accept_greedy(mx.argmax(logits, axis=-1), draft.tokens)
        return replace(verdict, gaps=gaps_of(logits)) if self._gaps else verdict


def gaps_of(logits: mx.array) -> mx.array:
    """By how much the best of each row ``[T, V]`` leads the second best: ``[T]`` float32."""
    best = mx.topk(logits.astype(mx.float32), 2, axis=-1)
    return best.max(axis=-1) - best.min(axis=-1)


def accept_greedy(choices: mx.array, drafted: mx.array) -> Acceptance:
    """Longest prefix of ``drafted`` ``[d]`` that equals the target's ``choices`` ``[d + 1]``."""
    if drafted.shape[0] == 0:
        return Acceptance(mx.array(0), choices)
    same = (choices[:-1] == drafted.astype(choices.dtype)).astype(mx.int32)
    return Acceptance(mx.cumprod(same).sum(), choices)
