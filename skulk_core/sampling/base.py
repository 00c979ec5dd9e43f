"""From logits to tokens: what is drafted, and how much of a draft the target accepts."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx


@dataclass(frozen=True)
class Draft:
    """``d`` drafted tokens ``[d]``, and the distributions ``[d, V]`` they were drawn from.

    ``probs`` is None for a draft that was not drawn: each token had all the mass.
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
    one after them is the target's own; what follows means nothing. ``gaps`` ``[w]``, where the sampler was asked for
    them: by how much the best logit of each row leads the second best.
    """

    num_accepted: mx.array
    tokens: mx.array
    gaps: mx.array | None = None


@dataclass(frozen=True)
class Counts:
    """Which tokens a text holds: ``in_prompt`` ``[V]`` bool, ``in_answer`` ``[V]`` float32, how often."""

    in_prompt: mx.array
    in_answer: mx.array

    @staticmethod
    def of_prompt(prompt: mx.array, vocab_size: int) -> "Counts":
        """The counts of a text that is all prompt, token ids ``[T]``."""
        seen = mx.zeros((vocab_size,), mx.bool_)
        seen[prompt] = True
        return Counts(seen, mx.zeros((vocab_size,), mx.float32))

    def and_then(self, tokens: mx.array) -> "Counts":
        """The counts after ``tokens`` ``[n]`` more of the answer."""
        return replace(self, in_answer=self.in_answer.at[tokens].add(1.0))


@dataclass(frozen=True)
class Place:
    """Where in a text something is sampled.

    ``num_tokens`` of prompt and answer stand before it; ``counts`` are theirs where the sampler asks for them.
    """

    num_tokens: int
    counts: Counts | None = None

    def after(self, tokens: mx.array) -> "Place":
        """The place behind ``tokens`` ``[n]`` more of the answer."""
        counts = None if self.counts is None else self.counts.and_then(tokens)
        return Place(self.num_tokens + int(tokens.shape[0]), counts)


class Sampler(abc.ABC):
    """One way of choosing tokens, used for target and draft alike. Pure: no caches, no model, no state of its own.

    What is drawn depends on the seed, on the place of the round and on the offset and purpose within it, and on nothing
    else: a run can be repeated, and work that was dropped lends its randomness to nothing.
    """

    def start(self, prompt: Sequence[int], vocab_size: int) -> Place:
        """The place behind ``prompt``."""
        return Place(len(prompt))

    @abc.abstractmethod
    def choose(self, logits: mx.array, place: Place) -> mx.array:
        """The token ``[1]`` at ``place`` for logits ``[1, V]``, nothing having been drafted."""

    @abc.abstractmethod
    def draft(self, logits: mx.array, place: Place, drafted: Sequence[mx.array]) -> tuple[mx.array, mx.array | None]:
        """A token ``[1]`` after those ``drafted`` (``[1]`` each) from ``place`` on, and its distribution ``[1, V]``.

        None for the distribution: the token was not drawn.
        """

    @abc.abstractmethod
    def accept(self, logits: mx.array, draft: Draft, place: Place) -> Acceptance:
        """The verdict of the target's logits ``[d + 1, V]`` on ``draft``, which begins at ``place``."""
