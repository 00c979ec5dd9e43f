"""A temperature above 0: tokens are drawn, drafts too, and the text is distributed as without drafts."""

from collections.abc import Sequence

import mlx.core as mx

from skulk_core.sampling.acceptance import accept_block, accept_tokens
from skulk_core.sampling.base import Acceptance, Draft, Place, Sampler
from skulk_core.sampling.drawing import draw, num_uniforms
from skulk_core.sampling.filters import distribution
from skulk_core.sampling.greedy import GreedySampler
from skulk_core.sampling.keys import Purpose, uniforms
from skulk_core.sampling.processors import Processors
from skulk_core.sampling.settings import AcceptRule, SamplingSettings


class StochasticSampler(Sampler):
    """Draws from the processed, filtered distribution; judges drafts by the rule of the settings."""

    def __init__(self, settings: SamplingSettings) -> None:
        assert not settings.is_greedy, "nothing is drawn at temperature 0"
        self._settings, self._processors = settings, Processors(settings)
        self._rule = accept_block if settings.accept == AcceptRule.BLOCK else accept_tokens

    def start(self, prompt: Sequence[int], vocab_size: int) -> Place:
        return self._processors.start(prompt, vocab_size)

    def choose(self, logits: mx.array, place: Place) -> mx.array:
        return self._drawn(self._distribution(logits, place, None), place, 0, Purpose.TOKEN)

    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        here = place
        if not self._processors.do_nothing and drafted:
            here = place.after(mx.concatenate(list(drafted)))
        probs = self._distribution(logits, here, None)
        # numbers of the round's place: the offset says how far the draft has come
        return self._drawn(probs, place, len(drafted), Purpose.DRAFT), probs

    def accept(self, logits: mx.array, draft: Draft, place: Place) -> Acceptance:
        p = self._distribution(logits, place, draft.tokens)
        if draft.depth == 0:
            return Acceptance(mx.array(0), self._drawn(p, place, 0, Purpose.TOKEN))
        q = draft.probs
        if q is None:
            q = (draft.tokens[:, None] == mx.arange(p.shape[-1])).astype(mx.float32)
        judging = self._uniforms(place, 0, Purpose.VERDICT, draft.depth)
        return self._rule(
            p, q, draft.tokens, judging, self._uniforms(place, 0, Purpose.TOKEN, num_uniforms(p.shape[-1]))
        )

    def _distribution(self, logits: mx.array, place: Place, following: mx.array | None) -> mx.array:
        return distribution(self._processors(logits, place, following), self._settings)

    def _drawn(self, probs: mx.array, place: Place, offset: int, purpose: Purpose) -> mx.array:
        """A token ``[1]`` from ``[1, V]``."""
        return draw(probs, self._uniforms(place, offset, purpose, num_uniforms(probs.shape[-1])))

    def _uniforms(self, place: Place, offset: int, purpose: Purpose, count: int) -> mx.array:
        """``[count]`` numbers in [0, 1)."""
        return uniforms(self._settings.seed, place.num_tokens, offset, purpose, count)


def make_sampler(settings: SamplingSettings, *, gaps: bool = False) -> Sampler:
    """The sampler for ``settings``; ``gaps`` as `GreedySampler`'s, for temperature 0 only."""
    assert settings.is_greedy or not gaps, "what is drawn has no gaps"
    return GreedySampler(settings, gaps=gaps) if settings.is_greedy else StochasticSampler(settings)
