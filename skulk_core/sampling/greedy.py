"""Temperature 0: the most likely token, always."""

import mlx.core as mx

from skulk_core.sampling.base import Acceptance, Draft, Sampler


class GreedySampler(Sampler):
    """Argmax of the logits; a draft is accepted while it equals the target's argmax."""

    def choose(self, logits: mx.array) -> mx.array:
        return mx.argmax(logits, axis=-1)

    def draft(self, logits: mx.array) -> tuple[mx.array, mx.array | None]:
        return mx.argmax(logits, axis=-1), None

    def accept(self, logits: mx.array, draft: Draft) -> Acceptance:
        return accept_greedy(self.choose(logits), draft.tokens)


def accept_greedy(choices: mx.array, drafted: mx.array) -> Acceptance:
    """Longest prefix of ``drafted`` ``[d]`` that equals the target's ``choices`` ``[d + 1]``."""
    if drafted.shape[0] == 0:
        return Acceptance(mx.array(0), choices)
    same = (choices[:-1] == drafted.astype(choices.dtype)).astype(mx.int32)
    return Acceptance(mx.cumprod(same).sum(), choices)
